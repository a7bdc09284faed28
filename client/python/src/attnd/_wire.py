"""Writes and reads tensors in protobuf bytes directly, by field number, without generated messages."""

from __future__ import annotations

import io
from typing import Any, Dict, Iterator, List, Sequence, Tuple, Union

import numpy as np

from attnd.errors import Internal

# Fields of ComputeAttentionRequest, StreamAttentionRequest and SessionRequest.
Q, K, V = 100, 101, 102
# Fields of ComputeAttentionResponse, StreamAttentionResponse and SessionReply.
LOG_SUM_EXP, OUTPUT = 100, 101

NOT_AN_ANSWER = "the server's reply is not an answer to the request: "

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """Encodes a value >= 0 as a varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_TAGS = {number: varint(number << 3 | _BYTES) for number in (1, 2, 4, 5, Q, K, V)}


def bytes_field_head(number: int, size: int) -> bytes:
    """The tag and length of a field of bytes."""
    return _TAGS[number] + varint(size)


def join(header: bytes, tensors: Sequence[Tuple[int, np.ndarray[Any, Any]]]) -> bytes:
    """Joins a message: the serialised small fields, then each tensor, which is copied once, whatever its strides."""
    parts: List[Any] = [header]
    contiguous = True
    for number, array in tensors:
        parts += (bytes_field_head(number, array.nbytes), array)
        contiguous = contiguous and array.flags.c_contiguous
    if contiguous:
        return b"".join(parts)
    size = sum(part.nbytes if isinstance(part, np.ndarray) else len(part) for part in parts)
    # BytesIO.getvalue() does not copy if no view of the buffer is left.
    buffer = io.BytesIO()
    buffer.seek(size - 1)
    buffer.write(b"\0")
    with buffer.getbuffer() as memory:
        at = 0
        for part in parts:
            if isinstance(part, np.ndarray):
                end = at + part.nbytes
                np.copyto(np.frombuffer(memory[at:end], part.dtype).reshape(part.shape), part)
            else:
                end = at + len(part)
                memory[at:end] = part
            at = end
    return buffer.getvalue()


def parse(kind: Any, data: bytes, otherwise: str) -> Any:
    """Parses `data` as the generated class `kind`. If that fails, raises Internal with the message `otherwise`."""
    try:
        return kind.FromString(data)
    except Exception:  # the base class of protobuf's errors depends on its version
        raise Internal(otherwise) from None


class Malformed(ValueError):
    """The bytes are not a protobuf message."""


def _read_varint(data: memoryview, at: int) -> Tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: memoryview) -> Iterator[Tuple[int, Union[int, memoryview], int, int]]:
    """Number, value, begin and end of each field. Varints are integers, everything else is a view of its bytes."""
    at, size = 0, len(data)
    while at < size:
        begin = at
        tag, at = _read_varint(data, at)
        kind = tag & 7
        value: Union[int, memoryview]
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        else:
            if kind == _BYTES:
                length, at = _read_varint(data, at)
            elif kind in (_FIXED64, _FIXED32):
                length = 8 if kind == _FIXED64 else 4
            else:
                raise Malformed
            if length > size - at:
                raise Malformed
            value = data[at : at + length]
            at += length
        yield tag >> 3, value, begin, at


def split(message: bytes) -> Tuple[bytes, Dict[int, memoryview]]:
    """Splits an answer into its serialised small fields and views of its tensors (the last, if one is repeated)."""
    data = memoryview(message)
    small: List[memoryview] = []
    tensors: Dict[int, memoryview] = {}
    try:
        for number, value, begin, end in fields(data):
            if number in (LOG_SUM_EXP, OUTPUT) and isinstance(value, memoryview):
                tensors[number] = value
            else:
                small.append(data[begin:end])
    except Malformed:
        raise Internal(f"{NOT_AN_ANSWER}it is no protobuf message") from None
    return b"".join(small), tensors
