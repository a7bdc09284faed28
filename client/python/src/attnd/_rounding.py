"""Converts arrays between element types, with the same rounding as the server."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnd._dtypes import BF16, STORAGE


def rounded(array: np.ndarray[Any, Any], code: int, to: int) -> np.ndarray[Any, Any]:
    """Converts `array` from element type `code` to `to`, rounding to nearest, ties to even. Both have the dtypes of
    `_dtypes.STORAGE`. Returns the array itself if the types are equal."""
    if code == to:
        return array
    if code == BF16:
        array = (array.astype("<u4") << 16).view("<f4")
    if to == BF16:
        return _to_bfloat16(np.ascontiguousarray(array, "<f4"))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return array.astype(STORAGE[to])


def _to_bfloat16(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bits = array.view("<u4")
    nearest = bits >> 16
    nearest &= 1
    nearest += 0x7FFF
    nearest += bits
    nearest >>= 16
    nan = np.isnan(array)
    if nan.any():  # keep NaNs: the carry of the addition may have changed them
        nearest[nan] = bits[nan] >> 16 | 0x40
    return nearest.astype("<u2")
