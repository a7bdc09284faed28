"""Element types: their numbers in messages, their names, and how numpy stores them."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Optional

import numpy as np

from attnd.errors import InvalidArgument

FP32, FP16, BF16 = 1, 2, 3  # attnd.v1.Dtype

NAMES: Dict[int, str] = {FP32: "float32", FP16: "float16", BF16: "bfloat16"}
SIZES: Dict[int, int] = {FP32: 4, FP16: 2, BF16: 2}
# Little-endian, as in messages. numpy has no bfloat16: its bits are stored as integers.
STORAGE: Dict[int, np.dtype[Any]] = {FP32: np.dtype("<f4"), FP16: np.dtype("<f2"), BF16: np.dtype("<u2")}

EXPECTED = "float32, float16 or bfloat16"

_CODES: Dict[str, int] = {name: code for code, name in NAMES.items()}
_seen: Dict[Any, int] = {}  # cache by dtype, because making a dtype's name is slow
_CODES.update({"f32": FP32, "f16": FP16, "bf16": BF16})  # attnctl's names


def code_of(dtype: Any) -> Optional[int]:
    """The code of an array's dtype, numpy's (of either byte order) or torch's; None for other element types."""
    code = _seen.get(dtype)
    if code is None:
        code = _code_of_name(dtype.name if isinstance(dtype, np.dtype) else str(dtype))
        if code is not None:
            _seen[dtype] = code
    return code


def _code_of_name(name: str) -> Optional[int]:
    """The code of "float32", "f32", "torch.float32" and so on; None for other names."""
    return _CODES.get(name[6:] if name.startswith("torch.") else name)


def parse(field: str, value: Any) -> int:
    """The code of a dtype argument: "bf16", "bfloat16", numpy.float32, torch.bfloat16, jax.numpy.float16."""
    name = str(value)
    code = _code_of_name(name)
    if code is None and not isinstance(value, str):
        with contextlib.suppress(TypeError):
            code = code_of(np.dtype(value))
    if code is None:
        raise InvalidArgument.of(field, EXPECTED, name[:80])
    return code


def numpy_dtype(code: int) -> np.dtype[Any]:
    """The dtype of a numpy array with these elements. bfloat16 needs the package ml_dtypes."""
    if code != BF16:
        return STORAGE[code]
    try:
        import ml_dtypes  # noqa: PLC0415 (optional)
    except ImportError:
        raise InvalidArgument.of(
            "output_dtype", "float32 or float16, as numpy has bfloat16 only with the package ml_dtypes", "bfloat16"
        ) from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype
