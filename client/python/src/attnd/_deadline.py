"""When a call has to be over."""

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
        """Seconds that are left, at least 0; None if the call may take for ever."""
        if self.at == math.inf:
            return None
        return max(0.0, self.at - time.monotonic())

    def passed(self) -> bool:
        return time.monotonic() >= self.at

    def error(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"the call took longer than its timeout of {self.timeout:g} s")


def checked_timeout(timeout: Any, default: float = math.inf) -> float:
    """Seconds; ``default`` for None. A time that has passed (0 or less) is a timeout like any other."""
    if timeout is None:
        return default
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        raise InvalidArgument.of("timeout", "a number of seconds", repr(timeout)[:80]) from None
    if math.isnan(seconds):
        raise InvalidArgument.of("timeout", "a number of seconds", "nan")
    return seconds
