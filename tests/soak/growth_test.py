#!/usr/bin/env python3
"""growth.py tells a series that grows from one that does not: memory, descriptors and threads, each by itself."""

import math
import pathlib
import subprocess
import sys
import tempfile

SAMPLES = 360  # an hour
STEADY = [[10 * i, 200_000 + int(15_000 * math.sin(i)), 60 + i % 7, 40 + i % 3] for i in range(SAMPLES)]


def with_growth(column: int, per_sample: float) -> list[list[int]]:
    return [[v + int(per_sample * i) if c == column else v for c, v in enumerate(row)] for i, row in enumerate(STEADY)]


def warming_up() -> list[list[int]]:
    return [[row[0], row[1] * min(i, 30) // 30, *row[2:]] for i, row in enumerate(STEADY)]


CASES = [
    ("steady", STEADY, 0),
    ("steady after a warm-up", warming_up(), 0),
    ("less at the end", with_growth(1, -300), 0),
    ("a load that comes and goes", [[r[0], r[1] + 500_000 * (i // 7 % 2), *r[2:]] for i, r in enumerate(STEADY)], 0),
    ("memory: 1 MiB each ten seconds", with_growth(1, 1024), 1),
    ("memory: 10 MiB in the hour", with_growth(1, 10 * 1024 / SAMPLES), 1),
    ("descriptors: one in a minute", with_growth(2, 1 / 6), 1),
    ("threads: one in a minute", with_growth(3, 1 / 6), 1),
    ("too few samples", STEADY[:17], 1),
]


def main() -> int:
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "samples.csv"
        for name, rows, wanted in CASES:
            path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
            script = pathlib.Path(__file__).parent / "growth.py"
            done = subprocess.run([sys.executable, script, path], capture_output=True, text=True, check=False)
            if done.returncode != wanted:
                failures += 1
                print(f"{name}: exit status {done.returncode}, not {wanted}\n{done.stdout}{done.stderr}")
    print(f"{len(CASES)} cases, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
