"""Views any kind of array as numpy, and returns results as arrays of the kind that went in.

Neither torch nor jax is imported here: if the caller has one of their arrays, it is imported already.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, Tuple

import numpy as np

from attnd import _dtypes
from attnd.errors import Error, InvalidArgument

_ACCEPTED = "an array (numpy, torch, JAX, or anything with DLPack or the buffer protocol)"
_WHOLE_NUMBERS = "bool, or integers that are 0 or 1"
_AXES = {False: "[batch, heads, sequence, dim]", True: "[batch, sequence, heads, dim]"}
_DLPACK_CPU = 1
_DLPACK_DEVICES = {2: "cuda", 3: "cuda_host", 4: "opencl", 7: "vulkan", 8: "metal", 10: "rocm", 13: "cuda_managed"}


class Kind:
    """Access to the arrays of one library."""

    name = "numpy.ndarray"

    def bits(self, field: str, value: Any) -> Tuple[np.ndarray[Any, Any], int]:
        """A view of the memory with the dtype of `_dtypes.STORAGE`, and the element type's code."""
        code = _dtypes.code_of(value.dtype)
        if code is None:
            raise InvalidArgument.of(f"{field}.dtype", _dtypes.EXPECTED, str(value.dtype))
        if code == _dtypes.BF16:
            # ml_dtypes' bfloat16 always has the machine's byte order.
            return value.view(np.uint16), code
        return value, code

    def plain(self, field: str, value: Any) -> np.ndarray[Any, Any]:
        """A view of an array of any element type that numpy has."""
        array: np.ndarray[Any, Any] = value
        return array

    def whole_numbers(self, field: str, value: Any) -> np.ndarray[Any, Any]:
        """As `plain`, for bool or integers."""
        array = self.plain(field, value)
        if array.dtype.kind not in "biu":
            raise InvalidArgument.of(f"{field}.dtype", _WHOLE_NUMBERS, str(array.dtype))
        return array

    def result(self, array: np.ndarray[Any, Any], code: int) -> Any:
        """An array of this kind over the memory of `array`, which has the dtype of `_dtypes.STORAGE`."""
        return array.view(_dtypes.numpy_dtype(code)) if code == _dtypes.BF16 else array

    def check_result(self, code: int) -> None:
        """Raises if `result` cannot make arrays of this element type."""
        _dtypes.numpy_dtype(code)

    def destination(self, field: str, value: Any) -> Tuple[np.ndarray[Any, Any], int]:
        """As `bits`, for an array that is written to."""
        array, code = self.bits(field, value)
        if not array.flags.writeable:
            raise InvalidArgument.of(field, "an array that can be written", "a read-only one")
        return array, code


class _NumpyKind(Kind):
    def bits(self, field: str, value: Any) -> Tuple[np.ndarray[Any, Any], int]:
        return super().bits(field, self.plain(field, value))

    def plain(self, field: str, value: Any) -> np.ndarray[Any, Any]:
        if type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
            raise InvalidArgument.of(field, "an array without a mask of its own (use key_mask)", "a masked array")
        return super().plain(field, value)


class _ForeignKind(Kind):
    """Anything with DLPack or the buffer protocol. Results are numpy arrays."""

    def bits(self, field: str, value: Any) -> Tuple[np.ndarray[Any, Any], int]:
        return super().bits(field, self.plain(field, value))

    def plain(self, field: str, value: Any) -> np.ndarray[Any, Any]:
        return _foreign_array(field, value)


class _TorchKind(Kind):
    name = "torch.Tensor"

    def bits(self, field: str, value: Any) -> Tuple[np.ndarray[Any, Any], int]:
        torch = sys.modules["torch"]
        self._check_place(field, value)
        code = _dtypes.code_of(value.dtype)
        if code is None:
            raise InvalidArgument.of(f"{field}.dtype", _dtypes.EXPECTED, str(value.dtype))
        self._check_dense(field, value)
        if value.requires_grad:
            if torch.is_grad_enabled():
                raise InvalidArgument.of(
                    field, f"a tensor without gradient ({field}.detach(), or torch.no_grad())", "one that requires grad"
                )
            value = value.detach()
        value = value.resolve_neg()
        if code == _dtypes.BF16:
            return value.view(torch.int16).numpy().view(np.uint16), code
        return value.numpy(), code

    def plain(self, field: str, value: Any) -> np.ndarray[Any, Any]:
        self._check_place(field, value)
        self._check_dense(field, value)
        array: np.ndarray[Any, Any] = value.numpy()
        return array

    def whole_numbers(self, field: str, value: Any) -> np.ndarray[Any, Any]:
        if value.dtype.is_floating_point or value.dtype.is_complex:  # numpy lacks some of these types
            raise InvalidArgument.of(f"{field}.dtype", _WHOLE_NUMBERS, str(value.dtype))
        return super().whole_numbers(field, value)

    @staticmethod
    def _check_place(field: str, value: Any) -> None:
        if value.device.type != "cpu":
            raise InvalidArgument.of(field, f"a tensor in the CPU's memory ({field}.cpu())", f"one on {value.device}")

    @staticmethod
    def _check_dense(field: str, value: Any) -> None:
        if value.layout is not sys.modules["torch"].strided:
            raise InvalidArgument.of(field, f"a dense tensor ({field}.to_dense())", str(value.layout))

    def result(self, array: np.ndarray[Any, Any], code: int) -> Any:
        torch = sys.modules["torch"]
        if code == _dtypes.BF16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    def check_result(self, code: int) -> None:
        pass


class _JaxKind(Kind):
    name = "jax.Array"

    def bits(self, field: str, value: Any) -> Tuple[np.ndarray[Any, Any], int]:
        return super().bits(field, self.plain(field, value))

    def plain(self, field: str, value: Any) -> np.ndarray[Any, Any]:
        if isinstance(value, sys.modules["jax"].core.Tracer):
            raise InvalidArgument.of(field, "an array with values (in jax.jit: jax.pure_callback)", "a traced one")
        for device in value.devices():
            if device.platform != "cpu":
                raise InvalidArgument.of(field, "an array in the CPU's memory", f"one on {device}")
        return np.asarray(value)

    def result(self, array: np.ndarray[Any, Any], code: int) -> Any:
        jax = sys.modules["jax"]
        return jax.device_put(super().result(array, code), jax.devices("cpu")[0])

    def destination(self, field: str, value: Any) -> Tuple[np.ndarray[Any, Any], int]:
        raise InvalidArgument.of(field, "an array that can be written", "a JAX array, which never can")


NUMPY, FOREIGN, TORCH, JAX = _NumpyKind(), _ForeignKind(), _TorchKind(), _JaxKind()


class Tensor(NamedTuple):
    """One of q, k, v, in the caller's memory."""

    kind: Kind
    array: np.ndarray[Any, Any]  # 4 axes; dtype as in `_dtypes.STORAGE`; any strides
    code: int  # attnd.v1.Dtype


def kind_of(field: str, value: Any) -> Kind:
    """The kind of an array. Raises InvalidArgument if it is not an array."""
    if isinstance(value, np.ndarray):
        return NUMPY
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return TORCH
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(value, jax.Array):
        return JAX
    if hasattr(value, "__dlpack__") or _has_buffer(value):
        return FOREIGN
    raise InvalidArgument.of(field, _ACCEPTED, f"a {type(value).__module__}.{type(value).__qualname__}")


def view(field: str, value: Any, sequence_first: bool) -> Tensor:
    """Views a caller's array of 4 axes. Only a big-endian array is copied."""
    kind = kind_of(field, value)
    array, code = kind.bits(field, value)
    if array.ndim != 4:
        raise InvalidArgument.of(
            field, f"4 axes, {_AXES[sequence_first]}", f"{array.ndim} axes, of sizes {list(array.shape)}"
        )
    if array.dtype != _dtypes.STORAGE[code]:
        array = array.astype(_dtypes.STORAGE[code])
    return Tensor(kind, array, code)


def whole_numbers(field: str, value: Any) -> np.ndarray[Any, Any]:
    """Views a caller's array of bool or integers, without a copy. Raises InvalidArgument for anything else."""
    return kind_of(field, value).whole_numbers(field, value)


def floats(field: str, value: Any) -> np.ndarray[Any, Any]:
    """Views a caller's array of float32, without a copy. Raises InvalidArgument for anything else."""
    array, code = kind_of(field, value).bits(field, value)
    if code != _dtypes.FP32:
        raise InvalidArgument.of(f"{field}.dtype", "float32", _dtypes.NAMES[code])
    return array


def destination(field: str, value: Any, code: int, shape: Tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Views a caller's array that a result is written to. It must have this element type and shape."""
    array, got = kind_of(field, value).destination(field, value)
    if got != code:
        raise InvalidArgument.of(f"{field}.dtype", _dtypes.NAMES[code], _dtypes.NAMES[got])
    if array.shape != shape:
        raise InvalidArgument.of(field, f"sizes {list(shape)}", f"sizes {list(array.shape)}")
    return array


def _has_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def _foreign_array(field: str, value: Any) -> np.ndarray[Any, Any]:
    try:
        if _has_buffer(value):
            return np.asarray(memoryview(value))
        device = int(value.__dlpack_device__()[0])
        if device != _DLPACK_CPU:
            name = _DLPACK_DEVICES.get(device, f"DLPack's device type {device}")
            raise InvalidArgument.of(field, "an array in the CPU's memory", f"one on {name}")
        return np.from_dlpack(value)
    except Error:
        raise
    except Exception as error:  # a foreign library may raise anything
        got = f"a {type(value).__module__}.{type(value).__qualname__} that numpy cannot read: {error}"
        raise InvalidArgument.of(field, _ACCEPTED, got[:200]) from error
