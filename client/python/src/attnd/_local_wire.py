"""The datagrams of attnd/v1/local.proto. A call's datagram is assembled from parts, so that tensors are not copied."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, List, Sequence, Tuple

import numpy as np

from attnd._wire import bytes_field_head, parse, varint
from attnd.v1 import local_pb2

VERSION = 1

# Fields of LocalRequest (call), LocalCall (id, timeout, request), LocalCancel (id): tags, as protobuf writes them.
_CALL, _ID, _TIMEOUT, _REQUEST, _CANCEL = b"\x12", b"\x08", b"\x12", b"\x1a", b"\x1a"
# Tag of LocalRequest (session).
_SESSION = b"\x22"
# The datagram that ends a session: LocalRequest.session_close.
SESSION_CLOSE = b"\x2a\x00"

# The longest google.protobuf.Duration, in seconds: 10,000 years.
_LONGEST = 315_576_000_000


def hello(user_agent: str) -> bytes:
    """The first datagram."""
    request = local_pb2.LocalRequest(hello=local_pb2.LocalHello(version=VERSION, user_agent=user_agent))
    return request.SerializeToString()


def call(
    call_id: int,
    timeout: float,
    header: bytes,
    names: bytes,
    sent: Sequence[Tuple[int, np.ndarray[Any, Any]]],
) -> List[Any]:
    """The parts of a call's datagram.

    Args:
        call_id: less than 2^63.
        timeout: in seconds; infinity is none.
        header: serialised fields of the request.
        names: further serialised fields of the request.
        sent: field number and array of each tensor in the datagram.
    """
    size = len(header) + len(names)
    tail, tail_bytes = _tensor_parts(sent)
    size += tail_bytes
    body = _ID + varint(call_id) + _timeout(timeout) + _REQUEST + varint(size)
    head = _CALL + varint(len(body) + size) + body + header + names
    return [head, *tail]


def session(field: int, body: bytes, names: bytes, sent: Sequence[Tuple[int, np.ndarray[Any, Any]]] = ()) -> List[Any]:
    """The parts of a session's datagram.

    Args:
        field: of SessionRequest: 1 is open, 2 is step, 4 is resume.
        body: serialised fields of the message in that field.
        names: further serialised fields of that message.
        sent: as for `call`.
    """
    size = len(body) + len(names)
    head = bytes_field_head(field, size)
    tail, tail_bytes = _tensor_parts(sent)
    return [_SESSION + varint(len(head) + size + tail_bytes) + head + body + names, *tail]


def _tensor_parts(sent: Sequence[Tuple[int, np.ndarray[Any, Any]]]) -> Tuple[List[Any], int]:
    """The serialised fields of tensors, in parts, and their total size."""
    parts: List[Any] = []
    size = 0
    for number, array in sent:
        head = bytes_field_head(number, array.nbytes)
        size += len(head) + array.nbytes
        parts += (head, array if array.flags.c_contiguous else np.ascontiguousarray(array))
    return parts, size


@lru_cache(maxsize=64)
def _timeout(seconds: float) -> bytes:
    if seconds > _LONGEST:
        return b""
    nanos = math.ceil(seconds * 1e9)  # rounded up: the client's own deadline passes first
    value = b"\x08" + varint(nanos // 10**9) + b"\x10" + varint(nanos % 10**9)
    return _TIMEOUT + bytes((len(value),)) + value


def cancel(call_id: int) -> bytes:
    """The datagram that cancels a call."""
    body = _ID + varint(call_id)
    return _CANCEL + bytes((len(body),)) + body


def reply(data: bytes) -> local_pb2.LocalReply:
    """Parses a datagram of the server's.

    Raises:
        Internal: it is not a LocalReply.
    """
    message: local_pb2.LocalReply = parse(local_pb2.LocalReply, data, "the server's datagram is no attnd.v1.LocalReply")
    return message
