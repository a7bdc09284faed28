"""In a child that was forked after a client was made every method fails at once; the parent's client goes on."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

import attnd
from conftest import Server

SRC = str(pathlib.Path(attnd.__file__).parents[1])

START = """
import asyncio, faulthandler, gc, os, signal, sys, time
faulthandler.register(signal.SIGUSR1, all_threads=False)
import numpy as np
import attnd

x = np.ones((1, 8, 16, 64), np.float32)
target = sys.argv[1]

def fails(call):
    start = time.monotonic()
    try:
        call()
    except attnd.FailedPrecondition as error:
        assert error.field == "process", error
        assert str(os.getpid()) in error.got, error
        assert time.monotonic() - start < 1
        return True
    return False

def wait(pid):
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0 if hasattr(os, "waitstatus_to_exitcode") else status == 0, status
"""

CASES = {
    "the child's calls fail and the parent's go on": """
client = attnd.Client(target, retry=None)
expected = client.attend(x, x, x, "t5-tiny")
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        assert fails(client.server_info)
        assert fails(lambda: client.attend(x, x, x, "t5-tiny"))
        assert fails(lambda: client.attend_many([]))
        assert fails(lambda: attnd.Client(target))
        assert fails(lambda: attnd.AsyncClient(target))
        client.close()
        del client
        gc.collect()
        sys.exit(0)
    wait(pid)
    assert np.array_equal(client.attend(x, x, x, "t5-tiny"), expected)
client.close()
""",
    "a child may make the first client": """
pid = os.fork()
if pid == 0:
    with attnd.Client(target) as client:
        assert client.attend(x, x, x, "t5-tiny").shape == x.shape
    sys.exit(0)
wait(pid)
with attnd.Client(target) as client:
    assert client.attend(x, x, x, "t5-tiny").shape == x.shape
""",
    "multiprocessing by fork reports the error": """
import multiprocessing

def work(index):
    return fails(lambda: attnd.Client(target))

client = attnd.Client(target)
client.server_info()
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(4)) == [True] * 4
assert client.server_info().version
client.close()
""",
    "a child of the asyncio client": """
async def main():
    async with attnd.AsyncClient(target) as client:
        await client.server_info()
        pid = os.fork()
        if pid == 0:
            step = client.server_info()
            assert fails(lambda: step.send(None))
            os._exit(0)
        wait(pid)
        assert (await client.server_info()).version

asyncio.run(main())
""",
}


FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class TooLate(Exception):
    """A program that ran too long. `line` is what its main thread was at."""

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


def run(program: str, *arguments: str, seconds: float) -> None:
    """Runs a program that dumps its traceback at SIGUSR1, and ends it with its children after `seconds`."""
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": SRC}
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)
            frame = next(filter(None, map(FRAME.search, process.stderr)))
            os.killpg(process.pid, signal.SIGKILL)
            text = program if frame[1] == "<string>" else pathlib.Path(frame[1]).read_text(encoding="utf-8")
            raise TooLate(text.splitlines()[int(frame[2]) - 1].strip()) from None
        assert process.returncode == 0, said


def run_beyond_grpcs_hang(program: str, *arguments: str, seconds: float = 60) -> None:
    """Runs a program again if it hung in os.fork() itself, where nothing of attnd has been tried yet.

    gRPC's handler joins gRPC's threads there. In grpcio 1.51 about one program in twenty, also one without attnd,
    waits for one that never ends.
    """
    for _ in range(3):
        try:
            run(program, *arguments, seconds=seconds)
        except TooLate as late:
            if not late.line.endswith("os.fork()"):
                raise
        else:
            return
    run(program, *arguments, seconds=seconds)


@pytest.mark.parametrize("case", CASES)
def test_fork(server: Server, case: str) -> None:
    run_beyond_grpcs_hang(START + CASES[case], server.tcp)


IMPORTS = "import ctypes, faulthandler, os, signal, time\nfaulthandler.register(signal.SIGUSR1, all_threads=False)\n"
HANGS = {
    "in a handler of Python's": "def stop():\n    time.sleep(60)\nos.register_at_fork(before=stop)\npid = os.fork()\n",
    "in the child": "if os.fork() == 0:\n    time.sleep(60)\nos.wait()\n",
}


@pytest.mark.parametrize("case", HANGS)
def test_a_hang_elsewhere_is_not_grpcs(case: str) -> None:
    with pytest.raises(TooLate) as late:
        run_beyond_grpcs_hang(IMPORTS + HANGS[case], seconds=1)
    assert late.value.line in ("time.sleep(60)", "os.wait()")


def test_a_hang_of_fork_itself_is_seen() -> None:
    hang = "c = ctypes.CDLL(None)\nc.__register_atfork(c.pause, None, None, None)\npid = os.fork()\n"
    with pytest.raises(TooLate) as late:
        run(IMPORTS + hang, seconds=1)
    assert late.value.line == "pid = os.fork()"
