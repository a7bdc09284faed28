"""An Io that a test scripts, and a clock that moves only when it is told to: what a call does, step by step."""

from __future__ import annotations

from typing import Any, Callable, List, Optional

import pytest

import attnd
from attnd import _options
from attnd._core import Core
from attnd._deadline import Deadline
from attnd._operation import Io, Operation


class Clock:
    """Replaces the module `time` of the modules that are named."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
        self.now = 1000.0
        for module in modules:
            monkeypatch.setattr(f"attnd.{module}.time", self)

    def monotonic(self) -> float:
        return self.now


class ScriptedIo(Io):
    """Attributes:
    done: what was done, in order: "attempt", ("pause", seconds), "reachable", ("connected", seconds to its deadline).
    is_reachable: what `reachable` says.
    is_connected: what `connected` says.
    in_pause: called within a pause.
    """

    def __init__(self, clock: Clock) -> None:
        self.done: List[Any] = []
        self.is_reachable = True
        self.is_connected = True
        self.in_pause: Callable[[], None] = lambda: None
        self._clock = clock

    def pause(self, seconds: float) -> None:
        self.done.append(("pause", seconds))
        self._clock.now += seconds
        self.in_pause()

    def reachable(self) -> bool:
        self.done.append("reachable")
        return self.is_reachable

    def connected(self, deadline: Deadline) -> bool:
        self.done.append(("connected", deadline.at - self._clock.now))
        return self.is_connected

    def attempts(self, *results: Any, before: Callable[[], None] = lambda: None) -> Callable[..., Operation[Any]]:
        """An attempt that raises or returns these one after another. Its arguments are noted."""
        left = list(results)

        def step() -> Any:
            before()
            result = left.pop(0)
            if isinstance(result, BaseException):
                raise result
            return result

        def attempt(*given: Any) -> Operation[Any]:
            self.done.append(("attempt", *given) if given else "attempt")
            return (yield step)

        return attempt


def scripted_core(io: Io, retry: Optional[attnd.Retry], **more: Any) -> Core:
    settings: dict[str, Any] = {
        "credentials": None,
        "token": None,
        "timeout": 60.0,
        "shared_memory": True,
        "local_calls": True,
        "load_balancing": "pick_first",
        "channels": 1,
        "keepalive_time": 30.0,
        "keepalive_timeout": 10.0,
        "user_agent": None,
    }
    return Core(_options.checked("127.0.0.1:1", retry=retry, **{**settings, **more}), io, [])
