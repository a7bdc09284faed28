"""Starts the attacks and the callers beside them, and reads what they report."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from attnd_server import NotMeasured, Server, background

HERE = pathlib.Path(__file__).resolve().parent
LARGE = "1,8,512,64"  # 1 MiB each of q, k, v and the output
SMALL = "1,1,8,64"
# Attackers call from here; the other callers from 127.0.0.1.
ATTACKER = "127.0.0.2"


def script(name: str, **arguments: Any) -> list[str]:
    """The command line of a program of this folder."""
    flags = [f"--{key}={value}" for key, value in arguments.items() if value not in (None, False, True)]
    flags += [f"--{key}" for key, value in arguments.items() if value is True]
    return [sys.executable, "-B", str(HERE / name), *flags]


def last_line(text: str, name: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise NotMeasured(f"{name} reported nothing")
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def finish(command: Sequence[str], seconds: float = 300) -> dict[str, Any]:
    """What a program reports in its last line. Raises NotMeasured."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"no end within {seconds:.0f} s") from error
    return last_line(done.stdout, pathlib.Path(command[-1] if command[0] == sys.executable else command[0]).name)


class Callers:
    """Callers that do nothing wrong, while the block runs or for `seconds`."""

    def __init__(
        self,
        build: pathlib.Path,
        target: str,
        shape: str,
        callers: int,
        every_ms: float,
        local: bool = False,
        rate: float = 0,
        deadline_ms: float = 60000,
        forwarded_for: str = "",
        nice: int = 0,
    ):
        self.command = [str(build / "bench/attnd_callers"), f"--target={target}", f"--shape={shape}"]
        self.command += [f"--callers={callers}", f"--every_ms={every_ms}", f"--local={str(local).lower()}"]
        self.command += [f"--rate={rate}", f"--deadline_ms={deadline_ms}", f"--forwarded_for={forwarded_for}"]
        if nice:
            self.command = ["nice", "-n", str(nice), *self.command]

    def start(self, seconds: float = 0, calls: int = 0) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, f"--seconds={seconds}", f"--calls={calls}"], stdout=subprocess.PIPE, text=True
        )


def together(callers: Sequence[Callers], seconds: float) -> list[dict[str, Any]]:
    """What each of them reports of the same time."""
    started = [caller.start(seconds) for caller in callers]
    return [last_line(process.communicate()[0], "attnd_callers") for process in started]


class Peak:
    """The most private memory of a server in MiB, looked at every few ms; memory that callers share is not its own."""

    def __init__(self, server: Server):
        self._server = server
        self._done = threading.Event()
        self.mib = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            with contextlib.suppress(NotMeasured, OSError):
                self.mib = max(self.mib, self._server.memory("RssAnon"))


@contextlib.contextmanager
def attack(command: Sequence[str]) -> Iterator[None]:
    """An attack in the background, from when it holds what it wants until the end of the block."""
    with background(command, ready="holding"):
        yield


def ended(process: subprocess.Popen[str], wait: bool = False) -> dict[str, Any]:
    """What callers report that are told to end, or, with `wait`, that end by themselves."""
    if not wait:
        process.terminate()
    return last_line(process.communicate()[0], "attnd_callers")
