"""A session over its own connection to the local socket (attnd/v1/local.proto).

The protocol is written once, as generators that yield what to wait for (`Waits`). `BlockingLocalSession` waits on the
caller's thread, `AwaitingLocalSession` (`_local_session_async.py`) in the event loop.
"""

from __future__ import annotations

import contextlib
import errno
import math
import select
import socket
import threading
import time
import weakref
from typing import Any, Callable, Generator, List, NamedTuple, Optional, TypeVar

from attnd import _duplex, _local_wire, _process
from attnd._closed import closed_during_the_call
from attnd._duplex import INTERRUPTED, LATE, Accept, Duplex, Make, Question, closed_session
from attnd._local import SILENT, Keepalive
from attnd._regions import SIGN_REQUEST
from attnd._session_wire import Datagram, SessionWire
from attnd.errors import DeadlineExceeded, Error, Unavailable

T = TypeVar("T")

LOST = "the connection to the server was lost, and what the session kept is gone"

# The most datagrams that are read from a socket whose other end is closed.
_LAST = 8
_NO_MEMORY = {errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM}


class Wait(NamedTuple):
    """What to wait for: select.POLLIN or POLLOUT, and for how many seconds. The generator is sent whether it came."""

    events: int
    seconds: float


Waits = Generator[Wait, bool, T]


class LocalSession(Duplex):
    """The protocol, for both kinds of client."""

    name = "local"

    def __init__(self, sock: socket.socket, keepalive: Keepalive) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._keepalive = keepalive
        self._wire = SessionWire()
        self._buffer = memoryview(bytearray(self._wire.most_bytes))
        self._client_closed = False
        weakref.finalize(self, sock.close)  # if the session is dropped without being closed

    def greet(self, user_agent: str, seconds: float) -> Any:
        """Asks the server for a session on this connection; returns whether it offers one. Must come first. Does not
        raise errors caused by the server."""
        raise NotImplementedError

    def cut(self) -> None:
        """Called when the client is closed: a step under way fails with Cancelled. May be called on any thread."""
        self._client_closed = True
        with contextlib.suppress(OSError):  # the connection may have ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close_copy(self) -> None:
        """In a forked child: closes the child's copy of the socket, so that the session ends when the parent closes
        it."""
        self._socket.close()

    def _greeting(self, user_agent: str, seconds: float) -> Waits[bool]:
        at = time.monotonic() + seconds
        if not (yield from self._send(Datagram([_local_wire.hello(user_agent)]), at)):
            return False
        while self._wire.welcome is None:
            yield from self._hear(at)
        welcome = self._wire.welcome
        if welcome.code != 0 or welcome.version != _local_wire.VERSION or not welcome.sessions:
            return False
        self._wire.most_bytes = welcome.max_message_bytes
        if welcome.max_message_bytes > len(self._buffer):
            self._buffer = memoryview(bytearray(welcome.max_message_bytes))
        # Large steps need shared memory: try to register a region now.
        return (yield from self._make_room(1, at))

    def _asking(self, question: Question, shared_bytes: int, accept: Accept[T], at: float) -> Waits[Optional[T]]:
        """Asks a question and returns its answer; None if there is no memory for it, and nothing was sent."""
        wire = self._wire
        if not wire.has_room(shared_bytes) and not (yield from self._make_room(shared_bytes, at)):
            return None
        if not (yield from self._send(wire.say(question, shared_bytes), at)):
            return None
        return (yield from self._answer(accept, at))

    def _answer(self, accept: Accept[T], at: float) -> Waits[T]:
        wire = self._wire
        while True:
            while not wire.replies:
                yield from self._hear(at)
            answer = accept(*wire.replies.popleft())
            if answer is not None:
                return answer

    def _make_room(self, shared_bytes: int, at: float) -> Waits[bool]:
        """Replaces the region by one of at least `shared_bytes`, or by none if that is 0. Returns whether it
        succeeded."""
        try:
            datagrams = self._wire.replace_region(shared_bytes)
        except (OSError, OverflowError):
            return False
        for datagram in datagrams:
            if not (yield from self._send(datagram, at)):
                raise Unavailable("the session's socket takes nothing any more")
        while self._wire.registering:
            yield from self._hear(at)
        return self._wire.has_room(shared_bytes)

    def _closing(self, seconds: float) -> Waits[None]:
        at = time.monotonic() + seconds
        yield from self._send(Datagram([_local_wire.SESSION_CLOSE]), at)
        while True:  # until the server's end of the session raises
            yield from self._hear(at)

    def _send(self, datagram: Datagram, at: float) -> Waits[bool]:
        """Sends a datagram. Returns False if the socket has no memory for it."""
        while True:
            try:
                self._socket.sendmsg(datagram.parts, datagram.control, socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                yield from self._wait(select.POLLOUT, self._keepalive.time + self._keepalive.timeout, at)
            except OSError as error:
                if error.errno in _NO_MEMORY:
                    return False
                raise self._last_words() from None
            else:
                return True

    def _hear(self, at: float) -> Waits[None]:
        """Waits for the next datagram and passes it to the wire, pinging a silent server. Raises an Error if none
        comes."""
        left = at - time.monotonic()
        if not (yield Wait(select.POLLIN, min(left, self._keepalive.time))):
            if left <= self._keepalive.time:
                raise DeadlineExceeded(LATE)
            with contextlib.suppress(OSError):  # an error shows in the next call
                self._socket.send(SIGN_REQUEST, socket.MSG_NOSIGNAL)
                self._wire.sign_requested()
            yield from self._wait(select.POLLIN, self._keepalive.timeout, at)
        try:
            size = self._socket.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            raise self._last_words() from None
        if size == 0:
            raise Unavailable(LOST)
        self._wire.hear(self._buffer[:size])

    def _wait(self, events: int, seconds: float, at: float) -> Waits[None]:
        """Waits for an event. Raises Unavailable if the server is silent for `seconds`, or DeadlineExceeded at `at`."""
        left = at - time.monotonic()
        if not (yield Wait(events, min(left, seconds))):
            raise DeadlineExceeded(LATE) if left <= seconds else Unavailable(SILENT)

    def _last_words(self) -> Error:
        """After a socket error: reads what the server sent before it closed, and returns the reason for the session's
        end, if it is there."""
        for _ in range(_LAST):
            try:
                size = self._socket.recv_into(self._buffer)
                if size == 0:
                    break
                self._wire.hear(self._buffer[:size])
            except OSError:  # the socket reports its error once, before the datagrams that are left
                continue
            except Error as error:
                return error
        return Unavailable(LOST)

    def _error_of(self, error: BaseException) -> BaseException:
        """Ends the session after an error in a question. Returns the error to raise."""
        if isinstance(error, Unavailable) and self._client_closed:
            error = closed_during_the_call()
        self._end(error if isinstance(error, Error) else Unavailable(INTERRUPTED))
        return error.with_traceback(None) if isinstance(error, Error) else error

    def _end(self, failure: Error) -> None:
        self._failure = failure
        self._socket.close()
        self._wire.drop()


class BlockingLocalSession(LocalSession):
    """Sends and receives on the caller's thread."""

    def __init__(self, sock: socket.socket, keepalive: Keepalive) -> None:
        super().__init__(sock, keepalive)
        self._lock = threading.Lock()
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    def greet(self, user_agent: str, seconds: float) -> bool:
        try:
            return self._run(self._greeting(user_agent, seconds))
        except (Error, OSError):
            return False

    def ask(self, make: Make, accept: Accept[T], seconds: float = math.inf) -> T:
        with self._lock:
            self._check()
            question = make()
            shared_bytes = self._wire.shared_bytes(question)
            try:
                answer = self._run(self._asking(question, shared_bytes, accept, time.monotonic() + seconds))
            except BaseException as error:
                raise self._error_of(error) from None
        if answer is None:
            raise question.no_memory()
        return answer

    def ask_prepared(
        self,
        say: Callable[[SessionWire], Optional[List[Any]]],
        take: Callable[[bytes], Optional[T]],
        accept: Callable[[], Accept[T]],
        seconds: float,
    ) -> Optional[T]:
        """As ask(), on a short path with prepared bytes.

        Args:
            say: makes the parts of the datagram; None if there is no room for it.
            take: reads the answer from the first datagram; None if it is not the answer or an unusual one.
            accept: makes the `accept` of ask(), for a datagram that `take` did not read.
            seconds: as for ask().

        Returns:
            None if nothing was sent; then ask() may be used.
        """
        with self._lock:
            self._check()
            parts = say(self._wire) if self._wire.quiet else None
            if parts is None:
                return None
            at = time.monotonic() + seconds
            try:
                self._socket.sendmsg(parts, (), socket.MSG_NOSIGNAL)
            except OSError:
                return None
            try:
                data = self._first(min(seconds, self._keepalive.time))
                answer = None if data is None else take(data)
                if answer is None:
                    if data is not None:
                        self._wire.hear(memoryview(data))
                    answer = self._run(self._answer(accept(), at))
            except BaseException as error:
                raise self._error_of(error) from None
        return answer

    def _first(self, seconds: float) -> Optional[bytes]:
        """The next datagram; None if none has come, or after an error, which the next receive reports."""
        if not self._readable.poll(_milliseconds(seconds)):
            return None
        try:
            size = self._socket.recv_into(self._buffer)
        except OSError:
            return None
        return bytes(self._buffer[:size]) if size > 0 else None

    def close(self) -> None:
        if _process.forked():
            return
        with self._lock:
            if self._failure is not None:
                return
            try:
                self._run(self._closing(_duplex.CLOSE_SECONDS))
            except Error:
                pass
            finally:
                self._end(closed_session())

    def _run(self, work: Waits[T]) -> T:
        try:
            wait = next(work)
            while True:
                wait = work.send(self._poll(wait))
        except StopIteration as done:
            result: T = done.value
            return result

    def _poll(self, wait: Wait) -> bool:
        poll = self._readable
        if wait.events != select.POLLIN:
            poll = select.poll()
            poll.register(self._socket, wait.events)
        return bool(poll.poll(_milliseconds(wait.seconds)))


def _milliseconds(seconds: float) -> Optional[float]:
    """Milliseconds for poll(), which has 32 bits for them; None (no timeout) for a longer time."""
    return max(0.0, seconds * 1e3) if seconds < 1e6 else None
