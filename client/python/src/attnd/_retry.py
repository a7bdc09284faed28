"""Decides when a call that a server refused or lost is sent again. Does no I/O: the callers wait and send."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable

from attnd._deadline import Deadline
from attnd._status import pushback_of
from attnd.errors import Aborted, Cancelled, Error, InvalidArgument, ResourceExhausted, Unavailable, Unknown

_MAX_EARNED = 1000.0
_RESERVE_SECONDS = 10.0
# gRPC's message for a call whose connection closed before a status arrived, mostly because of a proxy.
_STREAM_REMOVED = "Stream removed"


@dataclass(frozen=True)
class Retry:
    """How a client repeats calls that a server refused or lost, for example while servers restart.

    A call is repeated if it fails with Unavailable, with Unknown because a proxy dropped the connection, or with
    Cancelled although nobody cancelled it; the repeat goes to another server if there is one. Calls are repeated only
    once this client has reached a server: before that, a call to an address at which nothing listens fails at once,
    unless ``wait_for_first_server`` is set. Only calls that change nothing on the server are repeated (attend, bias,
    list_models, get_model, server_info), and the opening of a session. load_model, reload_model, upload_table,
    unload_model and evict_session are sent once, because after a failure it is not known whether they took effect; they
    wait for a connection first. If the server sends ``grpc-retry-pushback-ms``, that sets when the call is repeated, or
    forbids it.

    Attributes:
        enabled: False turns repeats off.
        max_time: seconds. A call begins its last attempt within this time of its start, and before its timeout. Until
            then it waits for a server that this client has reached before and cannot reach now.
        initial_backoff: seconds before the first repeat, doubled for each further repeat. Half of the wait is random.
        max_backoff: the longest such wait, in seconds.
        budget: repeats that the client may send for each of its calls, in addition to the reserve.
        reserve_per_second: repeats per second that the client may send in addition to the budget; at most ten seconds'
            worth accumulate.
        wait_for_first_server: wait up to ``max_time`` even for a server that this client has never reached.

    Example:
        >>> attnd.Retry(max_time=5.0).max_time
        5.0
    """

    enabled: bool = True
    max_time: float = 30.0
    initial_backoff: float = 0.05
    max_backoff: float = 1.0
    budget: float = 0.2
    reserve_per_second: float = 10.0
    wait_for_first_server: bool = False

    def __post_init__(self) -> None:
        for name, lowest, expected in (
            ("initial_backoff", 0.001, "at least 0.001 s"),
            ("max_backoff", 0.001, "at least 0.001 s"),
            ("max_time", 0.0, "at least 0"),
            ("budget", 0.0, "at least 0"),
            ("reserve_per_second", 0.0, "at least 0"),
        ):
            value: Any = getattr(self, name)
            if not isinstance(value, (int, float)) or not value >= lowest:
                raise InvalidArgument.of(f"retry.{name}", expected, repr(value)[:80])


class Budget:
    """Limits the repeats that a client may send. The reserve is full at first. Thread-safe."""

    def __init__(self, share: float, per_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._per_second = per_second
        self._now = now
        self._lock = threading.Lock()
        self._earned = 0.0
        self._reserve = per_second * _RESERVE_SECONDS
        self._refilled = now()

    def earn(self) -> None:
        """Counts a call (not a repeat)."""
        with self._lock:
            self._earned = min(_MAX_EARNED, self._earned + self._share)

    def spend(self) -> bool:
        """Takes one repeat; False if there is none left."""
        with self._lock:
            now = self._now()
            grown = self._reserve + (now - self._refilled) * self._per_second
            self._reserve = min(self._per_second * _RESERVE_SECONDS, grown)
            self._refilled = now
            # 0.2 is not exact in binary: five of them may sum to slightly less than 1.
            if self._earned >= 1 - 1e-9:
                self._earned = max(0.0, self._earned - 1)
            elif self._reserve >= 1 - 1e-9:
                self._reserve = max(0.0, self._reserve - 1)
            else:
                return False
            return True


def is_loss(error: Error) -> bool:
    """Whether the error means that the connection or the server was lost, or that the server is stopping."""
    if isinstance(error, Unknown):
        return error.message.startswith(_STREAM_REMOVED)
    return isinstance(error, Unavailable)


def is_eviction(error: Error) -> bool:
    """Whether the error means that the server evicted the session."""
    return isinstance(error, Aborted) and error.field == "session"


def comes_back(error: Error) -> bool:
    """Whether the error means that the server has no memory now, and says when to retry."""
    return isinstance(error, ResourceExhausted) and error.retry_delay is not None


class Policy:
    """The retry state that the calls of one client share. Thread-safe."""

    def __init__(self, options: Retry) -> None:
        self.options = options
        self.budget = Budget(options.budget, options.reserve_per_second)
        # Whether a server has been reached: only then is it worth waiting for one.
        self.connected = options.wait_for_first_server


class Tries:
    """The attempts of one call that changes nothing on the server. Not thread-safe."""

    def __init__(self, policy: Policy, deadline: Deadline, jitter: Callable[[], float] = random.random) -> None:
        self._policy = policy
        self._jitter = jitter
        self._start = time.monotonic()
        self._end = min(self._start + policy.options.max_time, deadline.at)
        self._backoff = policy.options.initial_backoff
        self._attempts = 0
        if policy.options.enabled:
            policy.budget.earn()

    def failed(self, error: Error, worth_another: bool = False) -> bool:
        """Counts a failed attempt. Returns whether the error allows another one: always if `worth_another`, unless
        retries are off."""
        self._attempts += 1
        if not self._policy.options.enabled:
            return False
        return worth_another or is_loss(error) or isinstance(error, Cancelled)

    def wait(self, error: Error) -> float:
        """Seconds before the next attempt. Raises the call's error if there is to be none."""
        pushback = pushback_of(error)
        if pushback is not None:
            if pushback < 0:
                raise self.explain(error, ", and the server wants no repeat")
            wait = pushback
            self._backoff = self._policy.options.initial_backoff
        else:
            # Jitter between half and all of the backoff, so that callers refused together do not return together.
            wait = self._backoff * (0.5 + 0.5 * self._jitter())
            self._backoff = min(self._backoff * 2, self._policy.options.max_backoff)
        if time.monotonic() + wait >= self._end:
            raise self.explain(error, ", and there is no time for another")
        return wait

    def deadline(self) -> Deadline:
        """The time by which the last attempt must begin."""
        return Deadline(self._end - time.monotonic())

    def spend(self, error: Error) -> None:
        """Takes another attempt from the budget. Raises the call's error if the budget is used up."""
        if not self._policy.budget.spend():
            raise self.explain(error, ", and the budget of repeats is used up")

    def explain(self, error: Error, why: str = "") -> Error:
        """`error`, with the number of attempts and `why` added to its message if there were several or `why` is set."""
        if self._attempts <= 1 and not why:
            return error
        seconds = time.monotonic() - self._start
        return error.with_message(f"{error.message} (attempt {self._attempts} in {seconds:.3f} s{why})")
