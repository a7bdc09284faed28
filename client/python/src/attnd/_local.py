"""Calls over the local socket (docs/shared-memory.md, "Calls") on the caller's thread."""

from __future__ import annotations

import contextlib
import errno
import math
import socket
import threading
import time
from collections import deque
from typing import Any, Callable, ContextManager, Deque, NamedTuple, Optional
from weakref import WeakSet

from attnd import _local_wire
from attnd._closed import closed_during_the_call
from attnd._regions import PATIENCE, REST, REST_AFTER_SILENCE, SIGN_REQUEST, connect, is_sign
from attnd.errors import DeadlineExceeded, Error, Internal, Unavailable
from attnd.v1 import local_pb2

# The most connections of one client, each with one call at a time. Further threads wait for a connection.
MAX_CONNECTIONS = 64

GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED}
# The longest timeout of a system call; a longer one counts as none.
_LONGEST_WAIT = 1e6
# An upper bound for the bytes of a call or an answer that are neither tensors nor fields of the request.
_BESIDE = 1024
LOST = "the connection to the server was lost before the answer came"
SILENT = "the server gives no sign of life"


class Keepalive(NamedTuple):
    """How long a server may be silent while calls wait, in seconds.

    Attributes:
        time: silence after which the server is pinged (SIGN_REQUEST).
        timeout: the time to answer; otherwise the connection is lost.
    """

    time: float = math.inf
    timeout: float = math.inf


NO_KEEPALIVE = Keepalive()


class Welcome(NamedTuple):
    """The limits of a server that offers local calls."""

    max_message_bytes: int
    max_calls: int

    def has_room(self, small_bytes: int, sent_bytes: int, answered_bytes: int) -> bool:
        """Whether a call and its answer each fit into a datagram.

        Args:
            small_bytes: bytes of the request's fields other than the sent tensors.
            sent_bytes: bytes of the tensors in the call's datagram.
            answered_bytes: bytes of the tensors in the answer's datagram.
        """
        return max(sent_bytes, answered_bytes) <= self.max_message_bytes - small_bytes - _BESIDE


class Lost(Exception):
    """The connection had ended before the call was sent: the server has not seen the call."""


class TooLarge(Exception):
    """The datagram is too large for the socket: the server has not seen the call."""


def greet(sock: socket.socket, user_agent: str, timeout: float) -> Optional[Welcome]:
    """Asks the server for local calls on a new connection; None if it does not offer them.

    Raises:
        OSError: the connection ended, as it does with a server without local calls, or there was no answer.
    """
    sock.settimeout(timeout)
    sock.send(_local_wire.hello(user_agent), socket.MSG_NOSIGNAL)
    data = sock.recv(1 << 16)
    if not data:
        raise ConnectionResetError(errno.ECONNRESET, "closed by the server")
    try:
        return welcome_of(_local_wire.reply(data))
    except Internal:
        return None


def welcome_of(reply: local_pb2.LocalReply) -> Optional[Welcome]:
    """What the server offers; None if it offers no local calls."""
    welcome = reply.welcome
    if reply.WhichOneof("kind") != "welcome":
        return None
    if welcome.code != 0 or welcome.version != _local_wire.VERSION:
        return None
    return Welcome(welcome.max_message_bytes, welcome.max_calls)


def _left(timeout: float, at: float) -> float:
    """The part of a timeout that is left until `at`. A call that has just begun gets the whole timeout, so that its
    encoded timeout and the socket's timeout are the same as in the previous call."""
    left = at - time.monotonic()
    return timeout if timeout - left < 1e-3 else left


class Connection:
    """A connection with one call at a time. Not thread-safe. After an error whose outcome is unknown the caller must
    close it."""

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_id",
        "_keepalive",
        "_signs",
        "_socket",
        "_timeout",
        "_view",
        "silent",
        "welcome",
    )

    def __init__(self, sock: socket.socket, welcome: Welcome, keepalive: Keepalive) -> None:
        self._socket = sock
        self._timeout: Optional[float] = 0.0  # the socket's; not set yet
        self._id = 0
        self._buffer = bytearray(welcome.max_message_bytes)
        self._view = memoryview(self._buffer)
        self._keepalive = keepalive
        self._signs = 0  # pings that are not answered yet
        self.welcome = welcome
        self.silent = False  # the server did not answer a ping

    def call(self, header: bytes, names: bytes, sent: Any, timeout: float, at: float) -> local_pb2.LocalAnswer:
        """Sends one call and receives its answer.

        Args:
            timeout: of the call, in seconds, as sent to the server; infinity is none.
            at: the deadline, by the monotonic clock.

        Raises:
            Lost, TooLarge: nothing was sent.
            DeadlineExceeded, Unavailable, Internal: the connection must be closed.
        """
        if timeout <= 0:
            raise DeadlineExceeded("the call was not sent")
        self._wait_for(min(timeout, self._keepalive.time))
        # Only one call is under way at a time; changing ids expose an answer to another call.
        self._id = self._id % 127 + 1
        try:
            parts = _local_wire.call(self._id, timeout, header, names, sent)
            if len(parts) == 1:
                self._socket.send(parts[0], socket.MSG_NOSIGNAL)
            else:
                self._socket.sendmsg(parts, (), socket.MSG_NOSIGNAL)
        except socket.timeout:
            raise DeadlineExceeded("the call was not sent") from None
        except OSError as error:
            if error.errno in GONE:
                raise Lost from None
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM):
                raise TooLarge from None
            raise Unavailable(f"sending the call failed: {error}") from None
        try:
            try:
                size = self._socket.recv_into(self._buffer)
            except socket.timeout:
                size = self._receive_late(at, ask=True)
            else:
                if self._signs and is_sign(self._view[:size]):
                    self._signs -= 1
                    size = self._receive_late(at, ask=False)
        except Error:
            raise
        except OSError as error:
            raise Unavailable(f"{LOST}: {error}") from None
        if size == 0:
            raise Unavailable(LOST)
        answer = _local_wire.reply(bytes(self._view[:size])).answer
        if answer.id != self._id:
            raise Internal(f"the server answered call {answer.id}, which is not under way")
        return answer

    def _wait_for(self, seconds: float) -> None:
        """Sets the timeout of the next system calls."""
        wait = seconds if seconds < _LONGEST_WAIT else None
        if wait != self._timeout:
            self._socket.settimeout(wait)
            self._timeout = wait

    def _receive_late(self, at: float, ask: bool) -> int:
        """Waits for the answer while the server answers pings. Returns the answer's size in the buffer.

        Args:
            at: the call's deadline.
            ask: whether to ping the server at once, because it has been silent for the keepalive time.
        """
        while True:
            left = at - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded("the call was not answered")
            if ask:
                with contextlib.suppress(socket.timeout):  # the socket is full: the server is not reading
                    self._socket.send(SIGN_REQUEST, socket.MSG_NOSIGNAL)
                    self._signs += 1
            self._wait_for(min(left, self._keepalive.timeout if ask else self._keepalive.time))
            try:
                size = self._socket.recv_into(self._buffer)
            except socket.timeout:
                if ask and time.monotonic() < at:
                    self.silent = True
                    raise Unavailable(SILENT) from None
                ask = True
                continue
            if not is_sign(self._view[:size]):
                return size
            self._signs -= 1
            ask = False

    def close(self) -> None:
        """Closes the connection, which ends the call."""
        self._socket.close()

    def interrupt(self) -> None:
        """Shuts the connection down from another thread: the call fails with Unavailable."""
        with contextlib.suppress(OSError):  # it may have ended already
            self._socket.shutdown(socket.SHUT_RDWR)


class LocalDoor:
    """Sends local calls over a pool of connections, which grows as threads need them. Thread-safe.

    Args:
        path: of the local socket.
        user_agent: sent to the server.
        on_loss: called when a connection has ended, on the thread that noticed it.
        keepalive: of each connection.
    """

    def __init__(
        self, path: str, user_agent: str, on_loss: Callable[[], None], keepalive: Keepalive = NO_KEEPALIVE
    ) -> None:
        self._keepalive = keepalive
        self._path = path
        self._user_agent = user_agent
        self._on_loss = on_loss
        self._idle: Deque[Connection] = deque()
        self._condition = threading.Condition()
        self._waiting = 0
        self._made: WeakSet[Connection] = WeakSet()
        self._making = 0
        self._rest_until = 0.0
        self._closed = False

    def worth_trying(self) -> bool:
        """Whether local calls may be possible, as far as is known. Does not wait."""
        return not self._closed and (len(self._made) > 0 or time.monotonic() >= self._rest_until)

    def offered(self, at: float) -> bool:
        """Whether the server offers local calls. Makes the first connection, unless it is known that none can be made;
        waits until ``at``, for PATIENCE at most."""
        if self._idle or self._made:
            return True
        connection = self._take(min(at - time.monotonic(), PATIENCE))
        if connection is None:
            return False
        self._put(connection)
        return True

    def call(
        self,
        header: bytes,
        names: bytes,
        sent: Any,
        sent_bytes: int,
        answered_bytes: int,
        timeout: float,
        at: float,
        interruptible: Optional[Callable[[Connection], ContextManager[None]]] = None,
    ) -> Optional[local_pb2.LocalAnswer]:
        """Sends one call and returns its answer, which may be an error.

        Args:
            header: serialised fields of the request, without ``names`` and ``sent``.
            names: serialised fields that name shared memory.
            sent: field number and array of each tensor in the datagram.
            sent_bytes: total size of these tensors.
            answered_bytes: size of the tensors in the answer's datagram.
            timeout: in seconds.
            at: the deadline, by the monotonic clock.
            interruptible: see Io.

        Returns:
            None if this call cannot be a local call: nothing was sent.

        Raises:
            DeadlineExceeded: the deadline passed in the client.
            Cancelled: the client was closed, or the call interrupted.
            Unavailable: the connection was lost; it is not known whether the call was computed.
            Internal: the server broke the protocol.
        """
        left = _left(timeout, at)
        while True:
            connection = self._take(left)
            if connection is None:
                if self._closed or time.monotonic() < at:
                    return None
                raise DeadlineExceeded(f"no connection was free within {timeout:g} s")
            try:
                if not connection.welcome.has_room(len(header) + len(names), sent_bytes, answered_bytes):
                    raise TooLarge
                if interruptible is None:
                    answer = connection.call(header, names, sent, left, at)
                else:
                    with interruptible(connection):
                        answer = connection.call(header, names, sent, left, at)
            except Lost:
                self._discard(connection)
                left = _left(timeout, at)
                continue
            except TooLarge:
                self._put(connection)
                return None
            except DeadlineExceeded as late:
                self._discard(connection)
                raise DeadlineExceeded(f"{late.message} within {timeout:g} s") from None
            except BaseException as error:
                self._discard(connection)
                if connection.silent:
                    self._rest_until = time.monotonic() + REST
                    self._close_idle()  # the other connections are to the same server
                if self._closed and isinstance(error, Unavailable):
                    raise closed_during_the_call() from None
                raise
            self._put(connection)
            return answer

    def close(self) -> None:
        """Closes all connections. Calls under way fail with Cancelled."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        for connection in list(self._made):
            connection.interrupt()
        self._close_idle()

    def abandon(self) -> None:
        """In a forked child: closes its copies of the sockets, so that they close when the parent closes them."""
        for connection in list(self._made):
            connection.close()

    def _take(self, timeout: float) -> Optional[Connection]:
        """Takes an idle connection or makes one; None if that fails or takes more than ``timeout`` seconds."""
        try:
            return self._idle.pop()
        except IndexError:
            pass
        deadline = time.monotonic() + timeout
        with self._condition:
            self._waiting += 1
            try:
                while True:
                    if self._idle:
                        try:
                            return self._idle.pop()
                        except IndexError:
                            pass
                    if self._closed:
                        return None
                    if len(self._made) + self._making < MAX_CONNECTIONS:
                        self._making += 1
                        break
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return None
                    self._condition.wait(min(left, _LONGEST_WAIT))
            finally:
                self._waiting -= 1
        try:
            return self._make(timeout)
        finally:
            with self._condition:
                self._making -= 1

    def _make(self, timeout: float) -> Optional[Connection]:
        if time.monotonic() < self._rest_until:
            return None
        sock = connect(self._path)
        if sock is None:
            self._rest_until = time.monotonic() + REST
            return None
        try:
            # A short timeout of the caller says nothing about the server; only a full PATIENCE without answer does.
            rest = REST_AFTER_SILENCE if timeout >= PATIENCE else REST
            welcome = greet(sock, self._user_agent, max(1e-3, min(timeout, PATIENCE)))
        except socket.timeout:
            welcome = None
        except OSError:
            rest = REST_AFTER_SILENCE
            welcome = None
        except BaseException:
            sock.close()
            raise
        if welcome is None:
            sock.close()
            self._rest_until = time.monotonic() + rest
            return None
        try:
            connection = Connection(sock, welcome, self._keepalive)
        except MemoryError:
            sock.close()
            raise
        self._made.add(connection)
        return connection

    def _put(self, connection: Connection) -> None:
        self._idle.append(connection)
        if self._waiting:
            with self._condition:
                self._condition.notify()
        if self._closed:
            self._close_idle()

    def _discard(self, connection: Connection) -> None:
        connection.close()
        self._made.discard(connection)
        if self._waiting:
            with self._condition:
                self._condition.notify()
        self._on_loss()

    def _close_idle(self) -> None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            self._made.discard(connection)
            connection.close()
