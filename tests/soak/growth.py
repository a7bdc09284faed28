#!/usr/bin/env python3
"""Fails if what a process holds grew between the second and the last third of its samples.

  growth.py SAMPLES.csv

Each line of the samples is: seconds, resident KiB, open file descriptors, threads. The first third is warm-up. Of the
second and of the last third the medians are compared, since load comes and goes; the last may be above the second by a
part and a fixed amount:

  resident memory        5 % + 8192 KiB
  file descriptors       0 % + 8
  threads                0 % + 4
"""

import csv
import pathlib
import statistics
import sys

BOUNDS = (("resident KiB", 0.05, 8192), ("file descriptors", 0.0, 8), ("threads", 0.0, 4))
FEWEST = 9


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with pathlib.Path(sys.argv[1]).open() as file:
        samples = [[int(value) for value in row] for row in csv.reader(file)]
    if len(samples) < FEWEST:
        sys.exit(f"{len(samples)} samples; {FEWEST} at least are needed")
    third = len(samples) // 3
    grown = 0
    for column, (name, part, fixed) in enumerate(BOUNDS, 1):
        values = [sample[column] for sample in samples]
        second, last = statistics.median(values[third : 2 * third]), statistics.median(values[2 * third :])
        bound = second * (1 + part) + fixed
        verdict = "grew" if last > bound else "steady"
        grown += last > bound
        print(f"{name}: {second:.0f} in the second third, {last:.0f} in the last (at most {bound:.0f}): {verdict}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
