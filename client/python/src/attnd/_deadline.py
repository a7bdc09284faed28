"""Deadlines and timeouts of calls."""

from __future__ import annotations

import math
import time
from typing import Any, Optional

from attnd.errors import DeadlineExceeded, InvalidArgument


class Deadline:
    """A point in time by the monotonic clock. Immutable."""

    __slots__ = ("at", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.at = time.monotonic() + timeout

    def left(self) -> Optional[float]:
        """Seconds left, at least 0; None if there is no deadline."""
        if self.at == math.inf:
            return None
        return max(0.0, self.at - time.monotonic())

    def passed(self) -> bool:
        return time.monotonic() >= self.at

    def error(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"the call took longer than its timeout of {self.timeout:g} s")


def checked_timeout(timeout: Any, default: float = math.inf) -> float:
    """Checks a timeout in seconds; ``default`` for None. 0 or less is valid, and has passed already."""
    return _seconds("timeout", "a number of seconds", timeout, default)


def checked_seconds(name: str, value: Any, default: float) -> float:
    """Checks a number of seconds, at least 0; ``default`` for None."""
    seconds = _seconds(name, "at least 0 seconds", value, default)
    if seconds < 0:
        raise InvalidArgument.of(name, "at least 0 seconds", f"{seconds:g}")
    return seconds


def _seconds(name: str, expected: str, value: Any, default: float) -> float:
    if value is None:
        return default
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise InvalidArgument.of(name, expected, repr(value)[:80]) from None
    if math.isnan(seconds):
        raise InvalidArgument.of(name, expected, "nan")
    return seconds
