"""Makes the connections of sessions over the local socket."""

from __future__ import annotations

import threading
import time
from typing import Optional, Type
from weakref import WeakSet

from attnd._local import Keepalive
from attnd._local_session import LocalSession
from attnd._operation import Operation
from attnd._regions import PATIENCE, REST, REST_AFTER_SILENCE, connect


class SessionDoor:
    """Makes the connections of one client's sessions. Thread-safe in the blocking client.

    Args:
        path: of the local socket.
        user_agent: sent to the server.
        keepalive: of each connection.
        kind: the class of the client's sessions, blocking or asyncio.
    """

    def __init__(self, path: str, user_agent: str, keepalive: Keepalive, kind: Type[LocalSession]) -> None:
        self._path = path
        self._user_agent = user_agent
        self._keepalive = keepalive
        self._kind = kind
        self._begun: WeakSet[LocalSession] = WeakSet()
        self._lock = threading.Lock()
        self._rest_until = 0.0
        self._closed = False

    def begin(self, at: float) -> Operation[Optional[LocalSession]]:
        """Makes a connection for a session; None if the server offers none. Waits until `at`, by the monotonic clock,
        for PATIENCE at most."""
        now = time.monotonic()
        if self._closed or now < self._rest_until:
            return None
        sock = connect(self._path)
        if sock is None:
            return None  # this took no time, so the next session may try again
        session = self._kind(sock, self._keepalive)
        with self._lock:
            self._begun.add(session)
        if self._closed:
            session.cut()
        seconds = max(1e-3, min(at - now, PATIENCE))
        offered: bool = yield lambda: session.greet(self._user_agent, seconds)
        if not offered:
            # A short timeout of the caller says nothing about the server; only a full PATIENCE without answer does.
            self._rest_until = time.monotonic() + (REST_AFTER_SILENCE if seconds >= PATIENCE else REST)
            return None
        return session

    def close(self) -> None:
        """Ends all sessions. Does not block."""
        self._closed = True
        with self._lock:
            begun = list(self._begun)
        for session in begun:
            session.cut()

    def abandon(self) -> None:
        """In a forked child: closes the child's copies of the sockets."""
        for session in list(self._begun):
            session.close_copy()
