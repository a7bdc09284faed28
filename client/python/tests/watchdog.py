"""Fails a test that does not end, with the stack of what it waits for."""

from __future__ import annotations

import faulthandler
import signal
import threading
import time
from typing import Any, Optional

import pytest

# For one test. Single waits of the tests end sooner, with a message of their own.
SECONDS = 240.0
# For what a test cleans up after it has failed; then the process ends.
_AFTERWARDS = 30.0


class Watchdog:
    """Raises pytest's Failed in the main thread. Uses SIGUSR2, and a thread that lives as long as the process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at: Optional[float] = None
        signal.signal(signal.SIGUSR2, self._fail)
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def watch(self, seconds: Optional[float]) -> None:
        """From now on; None: no longer."""
        with self._changed:
            self._at = None if seconds is None else time.monotonic() + seconds
            self._changed.notify()

    def _run(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        with self._changed:
            while True:
                left = None if self._at is None else self._at - time.monotonic()
                if left is not None and left <= 0:
                    self._at = None
                    faulthandler.dump_traceback_later(_AFTERWARDS, exit=True)
                    signal.pthread_kill(main, signal.SIGUSR2)
                else:
                    self._changed.wait(left)

    @staticmethod
    def _fail(*_: Any) -> None:
        pytest.fail(f"a test hung: it still runs after {SECONDS:g} s")
