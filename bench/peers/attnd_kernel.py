"""Our side: one run of `attnd_bench kernel` at a time."""

from __future__ import annotations

import functools
import json
import math
import os
import pathlib
import subprocess

from case import Case
from json_worker import PeerError


def run(
    binary: pathlib.Path, case: Case, reps: int, cpus: list[int], kernel: str = "", bias: str = "t5"
) -> dict[str, float]:
    """Runs the benchmark pinned to `cpus`; returns its JSON line. Raises PeerError."""
    command = [str(binary), "kernel", "--shape", case.shape(), "--queries", str(case.queries), "--dtype", case.dtype]
    command += ["--threads", str(case.threads), "--bias", bias, "--mask", "causal", "--reps", str(reps)]
    if kernel:
        command += ["--kernel", kernel]
    pin = functools.partial(os.sched_setaffinity, 0, cpus)
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=pin, timeout=300)
    if done.returncode != 0:
        raise PeerError(f"attnd_bench: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def reps_for(seconds: float, milliseconds: float) -> int:
    """How many repetitions fill a block of `seconds`."""
    return max(1, math.ceil(seconds * 1e3 / max(milliseconds, 1e-3)))
