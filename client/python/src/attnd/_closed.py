"""The errors of calls on a closed client."""

from __future__ import annotations

from attnd.errors import Cancelled, FailedPrecondition


def closed_error() -> FailedPrecondition:
    """The error of a call that begins after the client was closed."""
    return FailedPrecondition.of("client", "an open one", "one that was closed")


def closed_during_the_call() -> Cancelled:
    """The error of a call that was under way."""
    return Cancelled("the client was closed during the call")
