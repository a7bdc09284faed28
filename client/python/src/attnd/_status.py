"""Makes Errors of gRPC's errors and of errors in messages."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Optional, Tuple, Union

from attnd import _wire
from attnd.errors import Error, error_class
from attnd.v1 import types_pb2

_DETAILS = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"


def error_of(code: int, message: str, detail: Optional[types_pb2.ErrorDetail], retry_delay: Optional[float]) -> Error:
    """Makes an Error as the server describes it. `code` is not 0."""
    if detail is None:
        return error_class(code)(message, retry_delay=retry_delay)
    return error_class(code)(
        message, field=detail.field, expected=detail.expected, got=detail.got, retry_delay=retry_delay
    )


def error_in(answer: Any) -> Error:
    """The Error in a LocalAnswer, StreamAttentionResponse, SessionStepResult or LocalSessionEnd whose code is not 0."""
    detail = answer.detail if answer.HasField("detail") else None
    delay = None
    if detail is not None and detail.HasField("retry_delay"):
        delay = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
    return error_of(answer.code, answer.message, detail, delay)


def error_in_end(end: Any) -> Error:
    """The Error in a LocalSessionEnd whose code is not 0, with the server's pushback."""
    error = error_in(end)
    if end.HasField("retry_delay"):
        error.retry_delay = end.retry_delay.seconds + end.retry_delay.nanos / 1e9
    error.__dict__["_pushback"] = error.retry_delay
    return error


def from_rpc_error(rpc: Any) -> Error:
    """The Error of a grpc.RpcError of either API. `pushback_of` returns when the server allows a retry."""
    metadata = _as_dict(rpc.trailing_metadata())
    detail, delay = _read_details(metadata.get(_DETAILS))
    error = error_of(rpc.code().value[0], rpc.details() or "", detail, delay)
    error.__dict__["_pushback"] = _pushback(metadata)
    return error


def pushback_of(error: Error) -> Optional[float]:
    """Seconds after which the server allows a retry; negative: none is allowed; None: it did not say."""
    pushback: Optional[float] = error.__dict__.get("_pushback")
    return pushback


def _as_dict(metadata: Optional[Iterable[Any]]) -> Dict[str, Union[str, bytes]]:
    return {pair[0]: pair[1] for pair in metadata or ()}


def _pushback(metadata: Dict[str, Union[str, bytes]]) -> Optional[float]:
    text = metadata.get(_PUSHBACK)
    if text is None:
        return None
    try:
        return int(text) / 1000
    except ValueError:
        return -1.0  # as in gRPC: an invalid number forbids retries


def _read_details(data: Union[str, bytes, None]) -> Tuple[Optional[types_pb2.ErrorDetail], Optional[float]]:
    """The ErrorDetail and the retry delay in a google.rpc.Status {3: repeated google.protobuf.Any {1: type_url, 2:
    value}}.

    It is read by field number, because its generated module belongs to another package, which may not be installed.
    """
    detail: Optional[types_pb2.ErrorDetail] = None
    delay: Optional[float] = None
    if not isinstance(data, bytes):
        return detail, delay
    try:
        for number, entry, _, _ in _wire.fields(memoryview(data)):
            if number != 3 or not isinstance(entry, memoryview):
                continue
            parts = {n: value for n, value, _, _ in _wire.fields(entry)}
            url, value = parts.get(1), parts.get(2, memoryview(b""))
            if not isinstance(url, memoryview) or not isinstance(value, memoryview):
                continue
            if bytes(url).endswith(b"/attnd.v1.ErrorDetail"):
                detail = types_pb2.ErrorDetail.FromString(bytes(value))
            elif bytes(url).endswith(b"/google.rpc.RetryInfo"):
                delay = _read_retry_info(value)
    except Exception:  # the base class of protobuf's errors depends on its version; unreadable details are ignored
        pass
    return detail, delay


def _read_retry_info(data: memoryview) -> Optional[float]:
    """The seconds in a google.rpc.RetryInfo {1: google.protobuf.Duration {1: seconds, 2: nanos}}."""
    for number, value, _, _ in _wire.fields(data):
        if number == 1 and isinstance(value, memoryview):
            parts = {n: part for n, part, _, _ in _wire.fields(value) if isinstance(part, int)}
            return parts.get(1, 0) + parts.get(2, 0) / 1e9
    return None
