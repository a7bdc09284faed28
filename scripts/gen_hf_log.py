#!/usr/bin/env python3
"""Writes src/bias/hf_log_table.inc, and the same for Python: where PyTorch's float32 logarithm decides a T5 bucket.

On x86 PyTorch's float32 log comes from Intel's vector math library and is not always the correctly rounded one (it is
an ulp off for some 5% of arguments). Hugging Face's bucketing truncates a multiple of it, so now and then, mostly where
(distance / max_exact) is a rational power of (max_distance / max_exact), that ulp decides the bucket. This goes through
every (buckets per side, max_distance) of the domain below and notes each argument whose ulp matters somewhere.

usage: gen_hf_log.py INC PY        needs torch; takes about a minute. PY is client/python/src/attnd/_hf_log_table.py
"""
import math
import sys

import numpy as np
import torch

torch.set_num_threads(1)

ROUND = sorted({m << k for m in (1, 3, 5, 7) for k in range(21) if m << k <= 1 << 20}
               | {m * 10**k for m in (1, 2, 5) for k in range(7) if m * 10**k <= 10**6}
               | {1000 * k for k in range(1, 101)})


def powers(max_exact):
    """Every max_distance up to 2^20 that is max_exact times a square, cube, ... of a fraction: where edges are exact."""
    found = set()
    for exponent in range(2, 20):
        for q in range(1, max_exact + 1):
            if q**exponent > max_exact:
                break
            if max_exact % q**exponent:
                continue
            p = q + 1
            while (value := max_exact // q**exponent * p**exponent) <= 1 << 20:
                found.add(value)
                p += 1
    return sorted(found)


# (max_exact of these, every max_distance of these). buckets per side = 2 * max_exact or one more.
DOMAIN = [
    (range(1, 257), lambda max_exact: range(2, 4097)),
    (range(1, 65), lambda max_exact: range(4097, 16385)),
    ([*range(1, 65), 80, 96, 100, 112, 120, 125, 128, 160, 192, 200, 224, 250, 256, 320, 384, 400, 500, 512],
     lambda max_exact: ROUND),
    (range(1, 65), powers),
]


def decisive_arguments(max_exact, max_distances):
    """Yields (argument's bits, torch's log in ulps above the correctly rounded one) where that changes a bucket."""
    max_distances = np.array([m for m in max_distances if m > max_exact])
    if len(max_distances) == 0:
        return
    distance = np.arange(max_exact + 1, max_distances[-1])
    ratio = distance.astype(np.float32) / np.float32(max_exact)
    theirs = torch.log(torch.from_numpy(ratio)).numpy()
    rounded = np.log(ratio.astype(np.float64)).astype(np.float32)  # RoundedLog of hf_log.h
    differ = np.nonzero(theirs != rounded)[0]
    distance, ratio, theirs, rounded = (a[differ] for a in (distance, ratio, theirs, rounded))
    ulps = theirs.view(np.int32) - rounded.view(np.int32)
    for buckets in (2 * max_exact, 2 * max_exact + 1):
        factor = np.float32(buckets - max_exact)
        for max_distance in max_distances:
            count = np.searchsorted(distance, max_distance)
            divisor = np.float32(math.log(max_distance / max_exact))
            a = np.floor(theirs[:count] / divisor * factor)
            b = np.floor(rounded[:count] / divisor * factor)
            last = buckets - 1 - max_exact
            for i in np.nonzero(np.minimum(a, last) != np.minimum(b, last))[0]:
                yield int(ratio[i].view(np.uint32)), int(ulps[i])


def write_python(path, rows, by):
    """The table as a Python module, as ruff would format it but for the length of the list."""
    with open(path, "w", encoding="ascii") as out:
        out.write('"""Where PyTorch\'s float32 logarithm decides a T5 bucket: src/bias/hf_log_table.inc for Python.\n\n'
                  f'Written by scripts/gen_hf_log.py with {by}.\n"""\n\n'
                  "from __future__ import annotations\n\n"
                  "# Bits of x; the highest is set where PyTorch's result is an ulp below the rounded one, not above.\n"
                  "# fmt: off\nDECISIVE = (\n")
        for row in rows:
            out.write("    " + row.replace("U,", ",") + "\n")
        out.write(")\n# fmt: on\n")


def main():
    found = {}
    for max_exacts, max_distances in DOMAIN:
        for max_exact in max_exacts:
            found.update(decisive_arguments(max_exact, max_distances(max_exact)))
    assert set(found.values()) <= {1, -1}
    words = [f"0x{bits | (0x80000000 if found[bits] < 0 else 0):08X}U," for bits in sorted(found)]
    rows = [" ".join(words[i:i + 9]) for i in range(0, len(words), 9)]
    by = f"PyTorch {torch.__version__.split('+')[0]} on x86-64"
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write(f"// Written by scripts/gen_hf_log.py with {by}.\n" + "\n".join(rows) + "\n")
    write_python(sys.argv[2], rows, by)
    print(len(words), "arguments")


if __name__ == "__main__":
    main()
