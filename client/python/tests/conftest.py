"""Fixtures of all tests: a real attnd and the files of tests/golden.

The binaries are ATTND_BINARY and ATTNCTL_BINARY in the environment, or else those in build/, or else those on the PATH.
A test fails if a binary that it needs is missing; the others run without.
"""

from __future__ import annotations

import faulthandler
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from typing import Callable, Iterator

import pytest

from watchdog import SECONDS, Watchdog

ROOT = pathlib.Path(__file__).resolve().parents[3]

# A shell starts background jobs with SIGINT ignored, and Python does not change that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_watchdog = Watchdog()


@pytest.fixture(autouse=True)
def bounded_in_time() -> Iterator[None]:
    """A test that hangs fails."""
    _watchdog.watch(SECONDS)
    yield
    _watchdog.watch(None)
    faulthandler.cancel_dump_traceback_later()


def find_binary(variable: str, name: str, folder: str) -> str:
    found = os.environ.get(variable) or shutil.which(name, path=str(ROOT / "build" / folder)) or shutil.which(name)
    assert found, f"no {name}: build it, or set {variable}"
    return found


@pytest.fixture(scope="session")
def attnd_binary() -> str:
    return find_binary("ATTND_BINARY", "attnd", "server")


@pytest.fixture(scope="session")
def attnctl_binary() -> str:
    return find_binary("ATTNCTL_BINARY", "attnctl", "client")


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder tests/golden."""
    return ROOT / "tests" / "golden"


class Server:
    """An attnd process that listens on its own Unix socket and TCP port.

    unix, tcp: the targets. process: the subprocess.Popen. log: the file that it logs to.
    """

    def __init__(self, binary: str, folder: pathlib.Path, flags: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = folder / "s"
        self.unix = f"unix:{self.socket}"
        self.log = folder / "log"
        self._binary, self._flags = binary, flags
        self._start("127.0.0.1:0")

    def _start(self, tcp: str) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self._binary, f"--listen={self.unix},{tcp}", *self._flags],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.tcp = self._await_address()

    def _await_address(self) -> str:
        deadline = time.monotonic() + 60
        while True:
            found = re.search(r"127\.0\.0\.1:[1-9][0-9]*", self.log.read_text())
            if found:
                return found.group()
            assert self.process.poll() is None, f"attnd ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"attnd does not serve: {self.log.read_text()}"
            time.sleep(0.01)

    def stop(self) -> int:
        """Stops it with SIGTERM, after the calls that it has accepted; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """Stops it at once, with SIGKILL."""
        self.process.kill()
        self.process.wait(timeout=60)

    def restart(self) -> None:
        """Kills it and starts it again at the same addresses."""
        self.kill()
        self._start(self.tcp)


@pytest.fixture(scope="session")
def server(attnd_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that do not change its state. It offers shared memory."""
    found = Server(attnd_binary, tmp_path_factory.mktemp("server"), ("--shared_memory",))
    yield found
    assert found.stop() == 0, found.log.read_text()


@pytest.fixture
def make_server(attnd_binary: str, tmp_path: pathlib.Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with the given flags: make_server("--max_dim=16"). All are killed after the test."""
    made: list[Server] = []

    def make(*flags: str) -> Server:
        made.append(Server(attnd_binary, tmp_path / f"server{len(made)}", flags))
        return made[-1]

    yield make
    for found in made:
        found.kill()
