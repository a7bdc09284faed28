"""Servers that the wire's benchmarks call: started pinned to CPUs, on loopback, ended with the block that started them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from results import NotMeasured

# Importing PyTorch takes some seconds, on a busy machine half a minute.
START_SECONDS = 120.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_listening(port: int, process: subprocess.Popen, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise NotMeasured(f"{pathlib.Path(process.args[0]).name} does not listen on port {port}")


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text().strip().splitlines()
    return lines[-1] if lines else f"see {log.name}"


@contextlib.contextmanager
def attnd_process(binary: pathlib.Path, cpus: list[int], log: pathlib.Path) -> Iterator[tuple[str, int]]:
    """attnd with a thread for each CPU; gives its address and its process. Raises NotMeasured if it does not start."""
    port = _free_port()
    address = f"127.0.0.1:{port}"
    pin = functools.partial(os.sched_setaffinity, 0, cpus)
    command = [str(binary), f"--listen={address}", f"--threads={len(cpus)}"]
    if not binary.exists():
        raise NotMeasured(f"{binary.name} is not built")
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=pin)
        try:
            _wait_until_listening(port, process)
            yield address, process.pid
        finally:
            _end(process)


@contextlib.contextmanager
def attnd(binary: pathlib.Path, cpus: list[int], log: pathlib.Path) -> Iterator[str]:
    """As attnd_process; gives its address."""
    with attnd_process(binary, cpus, log) as (address, _):
        yield address


@contextlib.contextmanager
def python_server(cpus: list[int], log: pathlib.Path) -> Iterator[str]:
    """The Python server around PyTorch, with a PyTorch thread for each CPU; gives its address.

    Raises NotMeasured if it does not start.
    """
    script = pathlib.Path(__file__).with_name("python_server.py")
    command = [sys.executable, str(script), "--threads", str(len(cpus)), "--cpus", ",".join(map(str, cpus))]
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True)
        try:
            ready = select.select([process.stdout], [], [], START_SECONDS)[0]
            line = process.stdout.readline() if ready else ""
            if not line:
                raise NotMeasured(f"{script.name} did not start: {_last_line(log)}")
            yield json.loads(line)["listening"]
        finally:
            process.stdin.close()
            _end(process)
            process.stdout.close()
