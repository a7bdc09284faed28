"""What differs from sequence to sequence of a batch: where its queries stand, and which of its rows are true."""

from __future__ import annotations

from typing import Any, List

import numpy as np

from attnd import _tensors
from attnd._arguments import integer
from attnd.errors import InvalidArgument


def each_sequence(name: str, value: Any, batch: int, lowest: int, highest: int) -> List[int]:
    """One whole number of a range for each sequence; [] for None or an empty sequence."""
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
    """A key mask, [batch, keys] of bool or 0 and 1, as messages have it: each sequence's bits in bytes of its own, the
    first key in the lowest bit. Empty where every key is true."""
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


def bits_of_sequences(bits: bytes, keys: int, sequences: slice) -> bytes:
    """Those of some of the sequences."""
    size = -(-keys // 8)
    return bits[sequences.start * size : sequences.stop * size]
