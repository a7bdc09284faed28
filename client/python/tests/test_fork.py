"""In a child that was forked after a client was made every method fails at once; the parent's client goes on."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

import attnd
from conftest import Server

SRC = str(pathlib.Path(attnd.__file__).parents[1])

START = """
import asyncio, gc, os, sys, time
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


@pytest.mark.parametrize("case", CASES)
def test_fork(server: Server, case: str) -> None:
    environment = {**os.environ, "PYTHONPATH": SRC}
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", START + CASES[case], server.tcp]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
