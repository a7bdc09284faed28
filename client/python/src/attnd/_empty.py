"""Allocates arrays for a caller, in shared memory if there is some."""

from __future__ import annotations

import importlib
import math
import operator
import sys
from typing import Any, Callable, Optional, Tuple

import numpy as np

from attnd import _dtypes
from attnd._tensors import NUMPY, TORCH
from attnd.errors import InvalidArgument, ResourceExhausted

_SHAPE = "sizes, which are whole numbers from 0 on"


def make(allocate: Optional[Callable[[int], np.ndarray[Any, Any]]], shape: Any, dtype: Any, kind: Any) -> Any:
    """See Client.empty. ``allocate`` allocates bytes of shared memory; None: there is none."""
    sizes = _sizes(shape)
    code = _dtypes.parse("dtype", dtype)
    if kind is None:
        kind = "torch" if type(dtype).__module__ == "torch" else "numpy"
    if kind not in ("numpy", "torch"):
        raise InvalidArgument.of("kind", '"numpy" or "torch"', repr(kind)[:80])
    if kind == "torch" and "torch" not in sys.modules:
        importlib.import_module("torch")
    library = TORCH if kind == "torch" else NUMPY
    library.check_result(code)
    size = math.prod(sizes) * _dtypes.SIZES[code]
    if allocate is None or size == 0:
        try:
            return library.result(np.zeros(sizes, _dtypes.STORAGE[code]), code)
        except (MemoryError, ValueError):
            raise ResourceExhausted(f"no memory for {size} bytes") from None
    return library.result(allocate(size).view(_dtypes.STORAGE[code]).reshape(sizes), code)


def _sizes(shape: Any) -> Tuple[int, ...]:
    try:
        sizes = (operator.index(shape),) if hasattr(shape, "__index__") else tuple(operator.index(n) for n in shape)
    except TypeError:
        raise InvalidArgument.of("shape", _SHAPE, repr(shape)[:80]) from None
    if any(size < 0 for size in sizes):
        raise InvalidArgument.of("shape", _SHAPE, repr(shape)[:80])
    return sizes
