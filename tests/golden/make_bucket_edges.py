#!/usr/bin/env python3
"""Writes bucket_edges.json: where each logarithmic T5 bucket begins, asked of Hugging Face's own function.

usage: make_bucket_edges.py OUTPUT        needs torch and transformers
"""
import json
import random
import sys

import numpy as np
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

torch.set_num_threads(1)

# (buckets, max_distance) where a correctly rounded logarithm gives another bucket than PyTorch's.
DECIDED_BY_AN_ULP = [(17, 27), (19, 25), (36, 50), (46, 164), (48, 81), (51, 81), (54, 125), (55, 75), (65, 108),
                     (72, 100), (96, 162), (100, 162)]


def configurations():
    rng = random.Random(3)
    chosen = set(DECIDED_BY_AN_ULP)
    chosen |= {(b, d) for b in range(2, 14) for d in range(2, 40)}
    chosen |= {(b, b // 2 + 1) for b in range(2, 130)}
    chosen |= {(b, 2**k) for b in (2, 3, 4, 8, 9, 15, 16, 17, 31, 32, 33, 64, 128, 256) for k in range(1, 17)}
    chosen |= {(b, b // 2 * p**e) for b in range(2, 65, 3) for p in (2, 3, 5, 7, 10) for e in (2, 3, 4)}
    chosen |= {(rng.randrange(2, 130), rng.randrange(2, 4097)) for _ in range(1400)}
    chosen |= {(rng.randrange(2, 66), rng.randrange(4097, 16385)) for _ in range(100)}
    chosen |= {(b, d) for b in (2, 3, 8, 32, 33) for d in (10**5, 2**18, 10**6)}
    return sorted((b, d) for b, d in chosen if b // 2 < d <= 10**6)


def edges(buckets, max_distance):
    """The first distance of each bucket above the ones of a single distance each."""
    max_exact = buckets // 2
    distance = torch.arange(max_exact, max_distance + 2)
    bucket = T5Attention._relative_position_bucket(-distance, bidirectional=False, num_buckets=buckets,
                                                   max_distance=max_distance).numpy()
    assert np.all(np.diff(bucket) >= 0)
    return [max_exact + int(i) for i in np.searchsorted(bucket, np.arange(max_exact + 1, buckets))]


with open(sys.argv[1], "w", encoding="ascii") as out:
    out.write('{"made_with": "transformers %s, torch %s",\n "configs": [\n' % (transformers.__version__,
                                                                              torch.__version__.split("+")[0]))
    lines = [json.dumps([b, d, edges(b, d)], separators=(",", ":")) for b, d in configurations()]
    out.write(",\n".join(lines) + "\n]}\n")
    print(len(lines), "configurations")
