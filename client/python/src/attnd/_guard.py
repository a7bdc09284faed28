"""Runs a private server for another process, and ends it when that process ends, in whatever way.

This is a separate program, started by attnd.local_server() as `python -I -S -c THIS PARENT FOLDER COMMAND...`. The
kernel could end the server with its parent (PR_SET_PDEATHSIG), but it treats the thread that started the server as the
parent: a server started on a pool's thread would end with that thread. This process has one thread, which lives as long
as the process.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from typing import List

_PR_SET_PDEATHSIG = 1
_WAITED = (signal.SIGCHLD, signal.SIGTERM)
# How often the parent is checked, in seconds.
_PERIOD = 0.5


def main(parent: int, folder: str, command: List[str]) -> int:
    libc = ctypes.CDLL(None)
    guard = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)

    def before_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)
        if os.getppid() != guard:
            os._exit(1)

    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=before_exec)  # noqa: PLW1509
    while server.poll() is None:
        if os.getppid() != parent:
            server.kill()
            server.wait()
            shutil.rmtree(folder, ignore_errors=True)
            return 1
        signalled = signal.sigtimedwait(_WAITED, _PERIOD)
        if signalled is not None and signalled.si_signo == signal.SIGTERM:
            server.terminate()
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
