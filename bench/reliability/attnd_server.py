"""A server of its own for each measurement, and what it holds."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence


class NotMeasured(Exception):
    """There is no figure; says why."""


@functools.cache
def help_of(binary: pathlib.Path) -> str:
    return subprocess.run([binary, "--help"], capture_output=True, text=True, check=False).stdout


def knows(binary: pathlib.Path, flag: str) -> bool:
    """Whether this attnd has the flag."""
    return f"--{flag} " in help_of(binary)


class Server:
    """attnd at a free port of 127.0.0.1 and at a Unix socket. Ends with the block; the process is killed if need be."""

    def __init__(self, binary: pathlib.Path, flags: Sequence[str], address_space: int | None = None):
        self._folder = tempfile.TemporaryDirectory(prefix="attnd")
        self.folder = pathlib.Path(self._folder.name)
        self.folder.chmod(0o755)  # for callers of other users, where the socket's mode lets them in
        self.models = self.folder / "models"
        self.models.mkdir()
        self.unix = f"unix:{self.folder}/attnd.sock"
        self.log = self.folder / "log"
        command = [str(binary), f"--listen=127.0.0.1:0,{self.unix}", f"--model_root={self.models}", *flags]
        if address_space is not None:
            command = ["prlimit", f"--as={address_space}", *command]
        with open(self.log, "w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        self.tcp = self._await_address()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(5)
        self._folder.cleanup()

    def end(self, seconds: float) -> float | None:
        """SIGTERM; how long the process then took to end, or None if it had to be killed."""
        start = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        return time.monotonic() - start

    def _await_address(self) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(r"127\.0\.0\.1:[1-9]\d*", self.log.read_text())
            if found and pathlib.Path(self.unix.removeprefix("unix:")).exists():
                return found[0]
            time.sleep(0.02)
        self.process.kill()
        self.process.wait()
        raise NotMeasured(f"the server did not start: {self.last_words()}")

    def last_words(self) -> str:
        lines = self.log.read_text().strip().splitlines()
        return lines[-1] if lines else "no word from it"

    def memory(self, name: str) -> float:
        """A field of /proc/PID/status in MiB: VmRSS, VmHWM, RssAnon, RssShmem."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024
        raise NotMeasured("the server has ended")

    def alive(self) -> bool:
        return self.process.poll() is None


@contextlib.contextmanager
def background(command: Sequence[str], ready: str = "") -> Iterator[subprocess.Popen[str]]:
    """A program beside others: started, and waited for until it prints a line `ready`; ended with the block."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if ready and process.stdout is not None:
            for line in process.stdout:
                if line.strip() == ready:
                    break
            else:
                raise NotMeasured(f"{pathlib.Path(command[1]).name} ended before it was ready")
        yield process
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
