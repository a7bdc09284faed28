"""Timers that cancel overdue waits in grpcio's blocking calls, which take no timeout."""

from __future__ import annotations

import itertools
import math
import threading
import time
from typing import Callable, Dict, Tuple


class Watch:
    """Timers on one thread, which starts with the first entry. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: Dict[int, Tuple[float, Callable[[], None]]] = {}
        self._numbers = itertools.count()
        self._wakes = math.inf  # when the thread checks next
        self._started = False

    def add(self, at: float, overdue: Callable[[], None]) -> int:
        """Returns the number of a new entry. Unless it is removed, calls `overdue` at the monotonic time `at`."""
        with self._changed:
            number = next(self._numbers)
            self._entries[number] = at, overdue
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="attnd watch", daemon=True).start()
            elif at < self._wakes:
                self._changed.notify()
            return number

    def remove(self, number: int) -> None:
        """Removes an entry. A second call does nothing."""
        with self._changed:
            self._entries.pop(number, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                late = [number for number, (at, _) in self._entries.items() if at <= now]
                calls = [self._entries.pop(number)[1] for number in late]
                if not calls:
                    self._wakes = min((at for at, _ in self._entries.values()), default=math.inf)
                    self._changed.wait(None if self._wakes == math.inf else self._wakes - now)
                    self._wakes = -math.inf  # until its next check, for which add() need not wake it
            for call in calls:
                call()


WATCH = Watch()
