#!/usr/bin/env python3
"""Fails if what a process holds is more in the last quarter of its samples than in the first.

  growth.py SAMPLES.csv

Each line of the samples is: seconds, resident KiB, open file descriptors, threads. The first tenth is warm-up and left
out. Load and attacks come and go, and with them what they make the process hold. So the rest is cut into sixteen parts,
each longer than a round of attacks in a run of an hour, and of each part the least counts: what stays when all is gone.
Of the four parts of the first quarter and of the last one the medians are compared. The last may be above the first by a
part and a fixed number:

  resident memory        2 %
  file descriptors       0 % + 8
  threads                0 % + 4
"""

import csv
import pathlib
import statistics
import sys

BOUNDS = (("resident KiB", 0.02, 0), ("file descriptors", 0.0, 8), ("threads", 0.0, 4))
WARM_UP = 0.1
PARTS = 16
FEWEST = 18


def least_of_parts(values: list[int]) -> list[int]:
    bounds = [len(values) * i // PARTS for i in range(PARTS + 1)]
    return [min(values[first:last]) for first, last in zip(bounds, bounds[1:])]


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with pathlib.Path(sys.argv[1]).open() as file:
        samples = [[int(value) for value in row] for row in csv.reader(file)]
    if len(samples) < FEWEST:
        sys.exit(f"{len(samples)} samples; {FEWEST} at least are needed")
    samples = samples[int(len(samples) * WARM_UP) :]
    grown = 0
    for column, (name, part, fixed) in enumerate(BOUNDS, 1):
        least = least_of_parts([sample[column] for sample in samples])
        first, last = statistics.median(least[: PARTS // 4]), statistics.median(least[-PARTS // 4 :])
        bound = first * (1 + part) + fixed
        verdict = "grew" if last > bound else "steady"
        grown += last > bound
        print(f"{name}: {first:.0f} in the first quarter, {last:.0f} in the last (at most {bound:.0f}): {verdict}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
