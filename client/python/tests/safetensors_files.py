"""Safetensors files as numpy arrays. bfloat16 is read and written as ml_dtypes has it."""

from __future__ import annotations

import json
import pathlib
import struct
from typing import Any

import numpy as np

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}

_NAMES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "uint8": "U8",
    "bool": "BOOL",
}


def read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors, and the metadata."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[8 + size + begin : 8 + size + end], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            import ml_dtypes

            array = array.view(ml_dtypes.bfloat16)
        tensors[name] = array
    return tensors, metadata


def write(path: pathlib.Path, tensors: dict[str, Any]) -> None:
    header: dict[str, Any] = {}
    chunks = []
    at = 0
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        dtype = _NAMES[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        chunks.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))
