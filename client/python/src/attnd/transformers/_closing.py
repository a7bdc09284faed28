"""Closes the sessions of caches that are no longer referenced.

A finalizer may run on any thread and within any call, so it must not wait or take a lock: it passes the sessions to a
dedicated thread.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from typing import Any, List, Optional

from attnd.errors import Error

_left: queue.SimpleQueue[List[Any]] = queue.SimpleQueue()  # its put() is reentrant
_lock = threading.Lock()
_thread: Optional[threading.Thread] = None


def close_all(sessions: List[Any]) -> None:
    """Closes all sessions of a list, and empties it."""
    while sessions:
        with contextlib.suppress(Error, IndexError):
            sessions.pop().close()


def close_one(sessions: List[Any], session: Optional[Any]) -> None:
    """Closes one session of a list, unless detaching the model has emptied the list."""
    if session is not None and session in sessions:
        sessions.remove(session)
        session.close()


def close_later(sessions: List[Any]) -> None:
    """As close_all, on the thread that :func:`start` starts."""
    if sessions:
        _left.put(sessions)


def start() -> None:
    """Starts the thread unless it is running."""
    global _thread  # noqa: PLW0603
    if _thread is None:
        with _lock:
            if _thread is None:
                _thread = threading.Thread(target=_run, args=(_left,), name="attnd close", daemon=True)
                _thread.start()


def _run(left: queue.SimpleQueue[List[Any]]) -> None:
    while True:
        close_all(left.get())


def _forked() -> None:
    """In a forked child: forgets the parent's sessions and thread."""
    global _left, _lock, _thread
    _left, _lock, _thread = queue.SimpleQueue(), threading.Lock(), None


os.register_at_fork(after_in_child=_forked)
