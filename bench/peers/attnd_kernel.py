"""Runs `attnd_bench kernel`, which measures attnd's kernel, and reads its result."""

from __future__ import annotations

import json
import math
import pathlib
import subprocess

from case import Case
from json_worker import PeerError

# The peak memory of a process includes what its parent held when it forked. Therefore a small shell, not Python, starts
# the benchmark. The "exit" makes the shell fork too: without it, the shell would exec its only command directly.
_PINNED = ("sh", "-c", 'taskset -c "$0" "$@"; exit $?')
PATIENCE_SECONDS = 300


def run(
    binary: pathlib.Path,
    case: Case,
    reps: int,
    cpus: list[int],
    kernel: str = "",
    bias: str = "t5",
    true_keys: str = "all",
    beams: int = 1,
    page_rows: int = 0,
) -> dict:
    """Runs the benchmark pinned to `cpus`; returns its JSON line. Raises PeerError."""
    command = [str(binary), "kernel", "--shape", case.shape(), "--queries", str(case.queries), "--dtype", case.dtype]
    command += ["--threads", str(case.threads), "--bias", bias, "--mask", "causal", "--reps", str(reps)]
    command += ["--pages", case.pages, "--true_keys", true_keys]
    command += ["--beams", str(beams), "--page_rows", str(page_rows)]
    if case.window:
        command += ["--window_left", str(case.window - 1)]
    if kernel:
        command += ["--kernel", kernel]
    pinned = [*_PINNED, ",".join(map(str, cpus)), *command]
    try:
        done = subprocess.run(pinned, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"attnd_bench did not end within {PATIENCE_SECONDS} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise PeerError(f"attnd_bench: {lines[-1] if lines else f'status {done.returncode}'}")
    try:
        line = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise PeerError("attnd_bench printed no JSON line") from error
    if kernel and line["kernel"] != kernel:
        raise PeerError(f"attnd_bench ran {line['kernel']}, not {kernel}")
    return line


def reps_for(seconds: float, milliseconds: float) -> int:
    """The number of repetitions of `milliseconds` each that fill a block of `seconds`."""
    return max(1, math.ceil(seconds * 1e3 / max(milliseconds, 1e-3)))
