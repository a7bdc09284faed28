"""Waits of tests, all of them bounded."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Callable, List

SECONDS = 20.0


def wait_for(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Waits until something that happens on another thread has happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it has not happened within {seconds:g} s"
        time.sleep(0.002)


async def until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """As wait_for, for a task."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it has not happened within {seconds:g} s"
        await asyncio.sleep(0.002)


class in_thread:
    """Runs `work` on another thread. A call waits for it and returns its result, or raises its error."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._outcome: List[Any] = []
        self._error: List[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._outcome.append(work())
        except BaseException as error:
            self._error.append(error)

    def is_under_way(self) -> bool:
        return self._thread.is_alive()

    def __call__(self, seconds: float = SECONDS) -> Any:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"it has not ended within {seconds:g} s"
        if self._error:
            raise self._error[0]
        return self._outcome[0]


def join_all(threads: List[threading.Thread], seconds: float = SECONDS) -> None:
    """Waits for the ends of threads."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"a thread has not ended within {seconds:g} s"
