"""Calls over the local socket (docs/shared-memory.md, "Calls") in an asyncio event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional

from attnd import _local_wire
from attnd._closed import closed_during_the_call
from attnd._local import GONE, LOST, NO_KEEPALIVE, SILENT, Keepalive, Lost, TooLarge, Welcome, welcome_of
from attnd._regions import PATIENCE, REST, REST_AFTER_SILENCE, SIGN_REQUEST, connect, is_sign
from attnd.errors import DeadlineExceeded, Error, FailedPrecondition, Internal, Unavailable
from attnd.v1 import local_pb2

# The most datagrams that are read before other tasks run.
_READS = 32


class _Link:
    """A connection with many calls under way, distinguished by their ids. Belongs to one event loop."""

    def __init__(self, sock: socket.socket, on_end: Callable[[_Link], None], keepalive: Keepalive) -> None:
        sock.setblocking(False)
        self._keepalive = keepalive
        self._look_timer: Optional[asyncio.TimerHandle] = None
        self._asked = False
        self._heard = 0.0  # when a datagram last came or a ping was sent, by the loop's clock
        self.silent = False  # the server did not answer a ping
        self._socket = sock
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._last_id = 0
        # By id. None: the caller no longer waits, but the answer is still to come.
        self._calls: Dict[int, Optional[asyncio.Future[local_pb2.LocalAnswer]]] = {}
        self._waiting: Deque[asyncio.Future[None]] = deque()
        self._unsent: Deque[bytes] = deque()
        self._buffer = bytearray(1 << 16)
        self._greeting: asyncio.Future[Optional[Welcome]] = self._loop.create_future()
        self.welcome = Welcome(0, 0)
        self.ended = False
        self._loop.add_reader(sock.fileno(), self._read)

    async def greet(self, user_agent: str) -> bool:
        """Asks the server for local calls; returns whether it offers them on this connection."""
        try:
            self._send([_local_wire.hello(user_agent)])
            welcome = await asyncio.wait_for(self._greeting, PATIENCE)
        except (asyncio.TimeoutError, Lost, TooLarge, Unavailable):
            return False
        if welcome is None:
            return False
        self.welcome = welcome
        self._buffer = bytearray(max(welcome.max_message_bytes, 1 << 12))
        return True

    async def call(self, header: bytes, names: bytes, sent: Any, timeout: float, at: float) -> local_pb2.LocalAnswer:
        """Sends one call, returns its answer. Raises as LocalDoor.call, and Lost and TooLarge if nothing was sent."""
        while len(self._calls) >= self.welcome.max_calls and not self.ended:
            await self._turn(timeout, at)
        if self.ended:
            raise Lost
        left = timeout if at == math.inf else at - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"the call was not sent within {timeout:g} s")
        self._last_id += 1
        call_id = self._last_id
        self._send(_local_wire.call(call_id, left, header, names, sent))
        future: asyncio.Future[local_pb2.LocalAnswer] = self._loop.create_future()
        if not self._calls:
            self._hear()
        self._calls[call_id] = future
        if self._look_timer is None and self._keepalive.time < math.inf:
            self._look_timer = self._loop.call_later(self._keepalive.time, self._look)
        late = DeadlineExceeded(f"the call was not answered within {timeout:g} s")
        timer = None if left == math.inf else self._loop.call_later(left, self._fail, future, late)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            if self._calls.get(call_id) is future:
                self._calls[call_id] = None
                self._cancel(call_id)

    def end(self, error: Error) -> None:
        """Closes the connection. Calls under way fail with ``error``."""
        if self.ended:
            return
        self.ended = True
        if self._look_timer is not None:
            self._look_timer.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call is not None and not call.done():
                call.set_exception(error)
        if not self._greeting.done():
            self._greeting.set_result(None)
        self._wake(len(self._waiting))
        self._on_end(self)

    def close_copy(self) -> None:
        """In a forked child: closes the child's copy of the socket."""
        self._socket.close()

    async def _turn(self, timeout: float, at: float) -> None:
        """Waits until another call has ended and makes room."""
        # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that arrives at the same time as the result.
        turn: asyncio.Future[None] = self._loop.create_future()
        left = at - time.monotonic()
        late = DeadlineExceeded(f"the call was not sent within {timeout:g} s")
        timer = None if at == math.inf else self._loop.call_later(left, self._fail, turn, late)
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._wake(1)  # this task had the turn: pass it on
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1

    @staticmethod
    def _fail(future: asyncio.Future[Any], error: Error) -> None:
        if not future.done():
            future.set_exception(error)

    def _hear(self) -> None:
        self._heard = self._loop.time()
        self._asked = False

    def _look(self) -> None:
        """Keepalive timer: pings a silent server, and ends the connection if a ping is not answered."""
        self._look_timer = None
        if not self._calls:
            return
        left = self._heard + (self._keepalive.timeout if self._asked else self._keepalive.time) - self._loop.time()
        if left <= 0 and self._asked:
            self.silent = True
            self.end(Unavailable(SILENT))
            return
        if left <= 0:
            self._heard = self._loop.time()
            self._asked = True
            left = self._keepalive.timeout
            try:
                self._send([SIGN_REQUEST])
            except (Lost, TooLarge, Unavailable):
                self.end(Unavailable(LOST))
                return
        if left < math.inf:
            self._look_timer = self._loop.call_later(left, self._look)

    def _cancel(self, call_id: int) -> None:
        with contextlib.suppress(Lost, TooLarge, Unavailable):  # if the connection has ended, so has the call
            self._send([_local_wire.cancel(call_id)])

    def _send(self, parts: List[Any]) -> None:
        if not self._unsent:
            try:
                self._socket.sendmsg(parts, (), socket.MSG_NOSIGNAL)
                return
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._socket.fileno(), self._write)
            except OSError as error:
                if error.errno in (errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM):
                    raise TooLarge from None
                self.end(Unavailable(LOST))
                if error.errno in GONE:
                    raise Lost from None
                raise Unavailable(f"sending the call failed: {error}") from None
        self._unsent.append(b"".join(parts))

    def _write(self) -> None:
        while self._unsent:
            try:
                self._socket.send(self._unsent[0], socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.end(Unavailable(LOST))
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        for _ in range(_READS):
            if self.ended:
                return
            try:
                size = self._socket.recv_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                size = 0
            if size == 0:
                self.end(Unavailable(LOST))
                return
            self._hear()
            datagram = memoryview(self._buffer)[:size]
            if is_sign(datagram):
                continue
            try:
                self._take(_local_wire.reply(bytes(datagram)))
            except Error as error:
                self.end(error)

    def _take(self, reply: local_pb2.LocalReply) -> None:
        if not self._greeting.done():
            self._greeting.set_result(welcome_of(reply))
            return
        answer = reply.answer
        if answer.id not in self._calls:
            raise Internal(f"the server answered call {answer.id}, which is not under way")
        call = self._calls.pop(answer.id)
        if call is not None and not call.done():
            call.set_result(answer)
        self._wake(1)


class AsyncLocalDoor:
    """Sends all local calls over one connection. Belongs to the event loop of its first call.

    Args:
        path: of the local socket.
        user_agent: sent to the server.
        on_loss: called when the connection has ended.
        keepalive: of the connection.
    """

    def __init__(
        self, path: str, user_agent: str, on_loss: Callable[[], None], keepalive: Keepalive = NO_KEEPALIVE
    ) -> None:
        self._keepalive = keepalive
        self._path = path
        self._user_agent = user_agent
        self._on_loss = on_loss
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._link: Optional[_Link] = None
        self._making: Optional[asyncio.Task[Optional[_Link]]] = None
        self._rest_until = 0.0
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection for local calls."""
        return self._link is not None

    def worth_trying(self) -> bool:
        """Whether local calls may be possible, as far as is known. Does not wait."""
        return not self._closed and (self._link is not None or time.monotonic() >= self._rest_until)

    async def offered(self, at: float) -> bool:
        """Whether the server offers local calls. Connects, unless that is known to be futile; waits until ``at``."""
        return await self._linked(at) is not None

    async def call(
        self, header: bytes, names: bytes, sent: Any, sent_bytes: int, answered_bytes: int, timeout: float, at: float
    ) -> Optional[local_pb2.LocalAnswer]:
        """As LocalDoor.call. Cancelling the task cancels the call."""
        while True:
            link = await self._linked(at)
            if link is None:
                return None
            if not link.welcome.has_room(len(header) + len(names), sent_bytes, answered_bytes):
                return None
            try:
                return await link.call(header, names, sent, timeout, at)
            except Lost:
                if self._closed:
                    raise closed_during_the_call() from None
            except TooLarge:
                return None

    def close(self) -> None:
        """Closes the connection. Calls under way fail with Cancelled. May be called on any thread."""
        self._closed = True
        loop = self._loop
        if loop is None:
            return
        if loop.is_running() and not _runs_here(loop):
            # The finalizer of a dropped client may run on any thread.
            with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(self._end)
                return
        self._end()

    def _end(self) -> None:
        if self._link is not None:
            self._link.end(closed_during_the_call())
        if self._making is not None:
            self._making.cancel()

    def abandon(self) -> None:
        """In a forked child: closes the child's copy of the socket, so that it closes when the parent closes it."""
        if self._link is not None:
            self._link.close_copy()

    async def _linked(self, at: float) -> Optional[_Link]:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise FailedPrecondition.of("event loop", "the one of the client's first call", "another one")
        if self._link is not None and not self._link.ended:
            return self._link
        if self._closed or time.monotonic() < self._rest_until:
            return None
        if self._making is None:
            self._making = asyncio.ensure_future(self._make())
        # A task that is cancelled or times out here does not stop the connecting, for which other tasks may wait.
        making = self._making
        await asyncio.wait({making}, timeout=None if at == math.inf else max(0.0, at - time.monotonic()))
        if self._closed:
            raise closed_during_the_call()
        return self._link

    async def _make(self) -> Optional[_Link]:
        try:
            sock = connect(self._path)
            if sock is None:
                self._rest_until = time.monotonic() + REST
                return None
            link = _Link(sock, self._ended, self._keepalive)
            offered = False
            try:
                offered = await link.greet(self._user_agent)
            finally:
                if not offered:
                    self._rest_until = time.monotonic() + REST_AFTER_SILENCE
                    link.end(Unavailable(LOST))
            if offered:
                self._link = link
            return self._link
        finally:
            self._making = None

    def _ended(self, link: _Link) -> None:
        if self._link is link:
            self._link = None
            if link.silent:
                self._rest_until = time.monotonic() + REST
            self._on_loss()


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
