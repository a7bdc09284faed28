"""The errors that clients raise.

Every failed call raises a subclass of :class:`Error`, one for each gRPC status code. Where a built-in exception has the
same meaning, the subclass also derives from it, so that ``except ValueError`` or ``except TimeoutError`` works.
"""

from __future__ import annotations

from typing import Any, ClassVar, Dict, Optional, Tuple, Type, TypeVar

import grpc

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "DataLoss",
    "DeadlineExceeded",
    "Error",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
]


E = TypeVar("E", bound="Error")


class Error(Exception):
    """A call that failed. ``str(error)`` is the message.

    Attributes:
        code: the gRPC status code.
        message: what went wrong, in words.
        field: the argument or message field at fault, as a path ("q", "key_lengths[2]"); "" if it is no single one.
        expected: what would have been accepted; "" without ``field``.
        got: what was given; "" without ``field``.
        retry_delay: seconds after which the server suggests repeating the call; None if it did not say.

    Example:
        >>> try:
        ...     client.get_model("nobody")
        ... except attnd.NotFound as error:
        ...     print(error.field, "-", error.got)
        name - "nobody"
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    message: str
    field: str
    expected: str
    got: str
    retry_delay: Optional[float]

    def __init__(
        self, message: str, *, field: str = "", expected: str = "", got: str = "", retry_delay: Optional[float] = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.expected = expected
        self.got = got
        self.retry_delay = retry_delay

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Tuple[Any, ...]:
        detail = {name: getattr(self, name) for name in ("field", "expected", "got", "retry_delay")}
        return (type(self), (self.message,), detail)

    def with_message(self: E, message: str) -> E:
        """The same error with another message."""
        return type(self)(message, field=self.field, expected=self.expected, got=self.got, retry_delay=self.retry_delay)

    @classmethod
    def of(cls: Type[E], field: str, expected: str, got: str) -> E:
        """The error of an invalid field, worded as the server words it."""
        return cls(f"{field}: expected {expected}, got {got}", field=field, expected=expected, got=got)


class Cancelled(Error):
    """The call was cancelled: by the caller, by closing the client, or by something between client and server."""

    code = grpc.StatusCode.CANCELLED


class Unknown(Error):
    """The server, or a proxy on the way to it, gave no more specific code."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(Error, ValueError):
    """An argument is out of range, or two arguments contradict each other. ``field`` names it."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(Error, TimeoutError):
    """The call took longer than its timeout."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(Error, LookupError):
    """No such model, version, table, file, service or session."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(Error):
    """The name is in use."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(Error, PermissionError):
    """The server does not permit the call, for example a path that leaves its model root."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhausted(Error):
    """The call exceeds one of the server's limits, or there is no memory for it. ``field`` names what is limited."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(Error):
    """The state of the server or of the client does not allow the call (the client is closed, or in a forked child)."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(Error):
    """The server ended the session (``field`` is "session"): it was evicted, or another connection resumed it. Or the
    tables of a model attached by attnd.transformers were replaced on the server several times in a row."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(Error):
    """A row or a source of a session would have more tokens than the session was opened for."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(Error, NotImplementedError):
    """The server does not know the method."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(Error):
    """The server has a fault, or its reply does not match the request."""

    code = grpc.StatusCode.INTERNAL


class Unavailable(Error, ConnectionError):
    """The server was not reached or is stopping, and retries did not help; the message says how many there were."""

    code = grpc.StatusCode.UNAVAILABLE


class DataLoss(Error):
    """The server could not read a model's file or folder, or the file shrank while it was read."""

    code = grpc.StatusCode.DATA_LOSS


class Unauthenticated(Error):
    """The server, or a proxy in front of it, did not accept the credentials."""

    code = grpc.StatusCode.UNAUTHENTICATED


_BY_CODE: Dict[int, Type[Error]] = {
    kind.code.value[0]: kind
    for kind in (
        Cancelled,
        Unknown,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
        Unauthenticated,
    )
}


def error_class(code: int) -> Type[Error]:
    """The class for a gRPC status code other than 0; :class:`Unknown` for a number that gRPC does not define."""
    return _BY_CODE.get(code, Unknown)
