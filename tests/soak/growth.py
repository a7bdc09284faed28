#!/usr/bin/env python3
"""Fails if what a process holds is more in the last quarter of its samples than in the first.

  growth.py SAMPLES.csv

Each line of the samples is: seconds, resident KiB, open file descriptors, threads. The first tenth is warm-up and left
out; of the rest the medians of the first and of the last quarter are compared, since load comes and goes. The last may
be above the first by a part and a fixed number:

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
FEWEST = 9


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with pathlib.Path(sys.argv[1]).open() as file:
        samples = [[int(value) for value in row] for row in csv.reader(file)]
    if len(samples) < FEWEST:
        sys.exit(f"{len(samples)} samples; {FEWEST} at least are needed")
    samples = samples[int(len(samples) * WARM_UP) :]
    quarter = len(samples) // 4
    grown = 0
    for column, (name, part, fixed) in enumerate(BOUNDS, 1):
        values = [sample[column] for sample in samples]
        first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
        bound = first * (1 + part) + fixed
        verdict = "grew" if last > bound else "steady"
        grown += last > bound
        print(f"{name}: {first:.0f} in the first quarter, {last:.0f} in the last (at most {bound:.0f}): {verdict}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
