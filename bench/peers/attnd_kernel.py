"""Our side: one run of `attnd_bench kernel` at a time."""

from __future__ import annotations

import json
import math
import pathlib
import subprocess

from case import Case
from json_worker import PeerError

# A process counts what its parent held before exec as its own peak memory. So a small shell starts the benchmark, not
# Python; the "exit" keeps the shell from becoming the benchmark itself.
_PINNED = ("sh", "-c", 'taskset -c "$0" "$@"; exit $?')


def run(
    binary: pathlib.Path, case: Case, reps: int, cpus: list[int], kernel: str = "", bias: str = "t5"
) -> dict:
    """Runs the benchmark pinned to `cpus`; returns its JSON line. Raises PeerError."""
    command = [str(binary), "kernel", "--shape", case.shape(), "--queries", str(case.queries), "--dtype", case.dtype]
    command += ["--threads", str(case.threads), "--bias", bias, "--mask", "causal", "--reps", str(reps)]
    if kernel:
        command += ["--kernel", kernel]
    done = subprocess.run([*_PINNED, ",".join(map(str, cpus)), *command], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise PeerError(f"attnd_bench: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
    line = json.loads(done.stdout.strip().splitlines()[-1])
    if kernel and line["kernel"] != kernel:
        raise PeerError(f"attnd_bench ran {line['kernel']}, not {kernel}")
    return line


def reps_for(seconds: float, milliseconds: float) -> int:
    """How many repetitions fill a block of `seconds`."""
    return max(1, math.ceil(seconds * 1e3 / max(milliseconds, 1e-3)))
