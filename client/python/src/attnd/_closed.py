"""What calls of a client that is closed raise."""

from __future__ import annotations

from attnd.errors import Cancelled, FailedPrecondition


def closed_error() -> FailedPrecondition:
    """Of a call that begins afterwards."""
    return FailedPrecondition.of("client", "an open one", "one that was closed")


def closed_during_the_call() -> Cancelled:
    """Of a call that was under way."""
    return Cancelled("the client was closed during the call")
