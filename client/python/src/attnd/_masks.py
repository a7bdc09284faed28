"""Checks the arguments that differ by sequence or by key: positions, lengths, masks, segments and key biases."""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np

from attnd import _tensors
from attnd._arguments import integer
from attnd.errors import InvalidArgument


def each_sequence(name: str, value: Any, batch: int, lowest: int, highest: int) -> List[int]:
    """Checks a list of one whole number in a range for each sequence; [] for None or an empty list."""
    if value is None:
        return []
    try:
        values = value.tolist() if hasattr(value, "tolist") else list(value)
    except TypeError:
        values = value
    if not isinstance(values, list):
        raise InvalidArgument.of(name, f"none or {batch} (batch) values", repr(value)[:80])
    if not values:
        return []
    if len(values) != batch:
        raise InvalidArgument.of(name, f"none or {batch} (batch) values", f"{len(values)} values")
    return [integer(f"{name}[{i}]", each, lowest, highest) for i, each in enumerate(values)]


def key_bits(value: Any, batch: int, keys: int) -> bytes:
    """Packs a key mask, [batch, keys] of bool or 0 and 1, for a message: each sequence's bits begin at a new byte, the
    first key in the lowest bit. Empty if every key is true."""
    array = _tensors.whole_numbers("key_mask", value)
    if array.shape != (batch, keys):
        raise InvalidArgument.of("key_mask", f"sizes {[batch, keys]} (batch, keys)", f"sizes {list(array.shape)}")
    true = array if array.dtype.kind == "b" else array == 1
    if true.all():
        return b""
    wrong = np.argwhere(~true & (array != 0))
    if len(wrong) > 0:
        b, j = (int(index) for index in wrong[0])
        raise InvalidArgument.of(f"key_mask[{b}, {j}]", "0 or 1", str(array[b, j]))
    return np.packbits(true, axis=1, bitorder="little").tobytes()


def key_bias(value: Any, heads: int, keys: int) -> np.ndarray[Any, Any]:
    """Checks and flattens a bias for each key, float32 [heads, keys]."""
    array = _tensors.floats("key_bias", value)
    if array.shape != (heads, keys):
        raise InvalidArgument.of("key_bias", f"sizes {[heads, keys]} (heads, keys)", f"sizes {list(array.shape)}")
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong) > 0:
        h, j = (int(index) for index in wrong[0])
        raise InvalidArgument.of(f"key_bias[{h}, {j}]", "a finite number", str(array[h, j]))
    return array.ravel()


def segments(queries: Any, keys: Any, batch: int, query_length: int, key_length: int) -> Tuple[List[int], List[int]]:
    """Checks where sequences that are packed into rows begin, in q and in k; [] for an argument that is not given."""
    starts = _starts("query_segments", queries, batch, query_length)
    if not starts:
        if keys is not None and np.size(keys) > 0:
            raise InvalidArgument.of("key_segments", "none without query_segments", f"{np.size(keys)} values")
        return [], []
    rows = [start // query_length for start in starts]
    of_keys = _starts("key_segments", keys, batch, key_length)
    if not of_keys:
        if query_length != key_length:
            expected = f"{len(starts)} values, as query_length is not key_length"
            raise InvalidArgument.of("key_segments", expected, "none")
        return starts, []
    if len(of_keys) != len(starts):
        expected = f"{len(starts)} values, as query_segments has"
        raise InvalidArgument.of("key_segments", expected, f"{len(of_keys)} values")
    for i, (start, row) in enumerate(zip(of_keys, rows)):
        if start // key_length != row:
            raise InvalidArgument.of(
                f"key_segments[{i}]", f"a position in row {row}, as query_segments has", str(start)
            )
    return starts, of_keys


def _starts(name: str, value: Any, batch: int, length: int) -> List[int]:
    """Checks ascending positions in `batch` rows of `length` laid end to end. The first position in each row must be
    the row's beginning."""
    if value is None:
        return []
    values = value.tolist() if hasattr(value, "tolist") else list(value)
    found: List[int] = []
    row = -1
    for i, each in enumerate(values):
        start = integer(f"{name}[{i}]", each, found[-1] + 1 if found else 0, batch * length - 1)
        if start // length != row and start != (row + 1) * length:
            expected = f"{(row + 1) * length}, where row {row + 1} begins"
            raise InvalidArgument.of(f"{name}[{i}]", expected, str(start))
        row = start // length
        found.append(start)
    if found and row != batch - 1:
        raise InvalidArgument.of(name, f"a sequence in each of {batch} rows", f"none in row {row + 1}")
    return found


def bits_of_sequences(bits: bytes, keys: int, sequences: slice) -> bytes:
    """The key bits of some of the sequences."""
    size = -(-keys // 8)
    return bits[sequences.start * size : sequences.stop * size]
