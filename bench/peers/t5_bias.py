"""T5's causal relative-position buckets (Raffel et al. 2020), 32 buckets up to distance 128, in numpy.

The formula in plain float64. For 32 and 128 it agrees with every implementation; `worker.py` checks each peer that makes
its own bias against it.
"""

from __future__ import annotations

import numpy as np

NUM_BUCKETS = 32
MAX_DISTANCE = 128


def buckets(offsets: np.ndarray) -> np.ndarray:
    """The bucket of each offset (query position - key position), all >= 0."""
    exact = NUM_BUCKETS // 2
    far = np.log(np.maximum(offsets, 1) / exact) / np.log(MAX_DISTANCE / exact) * (NUM_BUCKETS - exact)
    return np.where(offsets < exact, offsets, np.minimum(exact + far.astype(np.int64), NUM_BUCKETS - 1))


def by_offset(table: np.ndarray, count: int) -> np.ndarray:
    """[heads, count]: the bias at offset 0, 1, 2, ... from a [num_buckets, heads] table."""
    return np.ascontiguousarray(table[buckets(np.arange(count))].T)


def descending_with_future(offset_bias: np.ndarray) -> np.ndarray:
    """[heads, 2*count-1]: by descending offset, count-1 first; -inf from offset -1 on (keys after the query)."""
    heads, count = offset_bias.shape
    future = np.full((heads, count - 1), -np.inf, offset_bias.dtype)
    return np.ascontiguousarray(np.concatenate([offset_bias[:, ::-1], future], axis=1))


def causal_mask_view(offset_bias: np.ndarray, queries: int, keys: int) -> np.ndarray:
    """[heads, queries, keys]: the bias where the key is visible, else -inf. The queries are the last rows. Rows overlap."""
    line = descending_with_future(offset_bias)
    heads = line.shape[0]
    step = line.strides[1]
    # Row r, key j is offset (keys - queries + r) - j, which stands at entry (queries - 1 - r) + j.
    start = line[:, queries - 1 :]
    return np.lib.stride_tricks.as_strided(start, (heads, queries, keys), (line.strides[0], -step, step))


def causal_mask(offset_bias: np.ndarray, queries: int, keys: int) -> np.ndarray:
    """causal_mask_view as an array of its own."""
    return causal_mask_view(offset_bias, queries, keys).copy()
