"""The errors that clients raise.

Every failed call raises an :class:`Error`: one subclass for each gRPC status code. Where a built-in exception says the
same, the subclass is also that one, so that ``except ValueError`` or ``except TimeoutError`` works.
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
        field: the argument or message field at fault, as a path ("q", "key_lengths[2]"); "" if no single one was.
        expected: what would have been accepted; "" without ``field``.
        got: what was given; "" without ``field``.
        retry_delay: seconds after which the server asks the call to be made again; None if it did not say.

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
        """The same error in other words."""
        return type(self)(message, field=self.field, expected=self.expected, got=self.got, retry_delay=self.retry_delay)

    @classmethod
    def of(cls: Type[E], field: str, expected: str, got: str) -> E:
        """The error that a field caused, in the words that the server uses."""
        return cls(f"{field}: expected {expected}, got {got}", field=field, expected=expected, got=got)


class Cancelled(Error):
    """The call was cancelled: by the caller, by closing the client, or on the way."""

    code = grpc.StatusCode.CANCELLED


class Unknown(Error):
    """The server, or something on the way to it, gave no better code."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(Error, ValueError):
    """An argument is out of range, or arguments do not go together. ``field`` names it."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(Error, TimeoutError):
    """The call took longer than its timeout."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(Error, LookupError):
    """No such model, version, table or file."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(Error):
    """The name is in use."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(Error, PermissionError):
    """The server does not allow it, for example a path that leaves its model root."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhausted(Error):
    """Over one of the server's limits, or no memory. ``field`` names the limit's subject."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(Error):
    """The call does not fit the state of the server or of the client (closed; in a forked child)."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(Error):
    """The model was replaced while the pieces of a large call were computed, several times in a row; or the server has
    ended a session."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(Error):
    """A row or a source of a session would have more tokens than the session was opened for."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(Error, NotImplementedError):
    """The server does not know the method."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(Error):
    """A fault of the server, or a reply that is not an answer to the request."""

    code = grpc.StatusCode.INTERNAL


class Unavailable(Error, ConnectionError):
    """The server was not reached or is stopping, and the repeats did not help; the message says how many there were."""

    code = grpc.StatusCode.UNAVAILABLE


class DataLoss(Error):
    """gRPC's code DATA_LOSS, which attnd's server does not use."""

    code = grpc.StatusCode.DATA_LOSS


class Unauthenticated(Error):
    """The server, or a proxy before it, wants other credentials."""

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
    """The class of a gRPC status code, which is not 0; :class:`Unknown` for a number that gRPC does not know."""
    return _BY_CODE.get(code, Unknown)
