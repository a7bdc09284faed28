"""Registers regions of memory with the server, over the local socket (docs/shared-memory.md)."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from typing import Deque, Dict, List, Optional, Set, Tuple

from attnd import _process

_MAGIC = 0x6D6873646E747461  # "attndshm"
_VERSION = 1
_REGISTER, _RELEASE = 1, 2
_REQUEST = struct.Struct("<QIIQ16s")
_REPLY = struct.Struct("<QIi16s224s")
_NO_HANDLE = bytes(16)

# A ping: a release with a handle that no region has. The server does nothing and answers.
SIGN_REQUEST = _REQUEST.pack(_MAGIC, _VERSION, _RELEASE, 0, _NO_HANDLE)
_SIGN_BEGINS = struct.pack("<Q", _MAGIC)

# A server that has not answered for this long is assumed not to share memory; an answer takes microseconds.
PATIENCE = 1.0
# How long the server is not asked again after that, and after it was found not to share memory.
REST_AFTER_SILENCE = 10.0
REST = 1.0


class Region:
    """Shared memory that is or may be registered with the server.

    Attributes:
        address: where it begins.
        size: in bytes.
        fd: its memfd.
        handle: the server's name for it, 16 bytes; None if it is not registered. Reading needs no lock.
        fields: cache of serialised fields with the handle, by offset and tensor. Reading needs no lock.
    """

    __slots__ = ("address", "fd", "fields", "handle", "refused_until", "size")

    def __init__(self, address: int, size: int, fd: int) -> None:
        self.address = address
        self.size = size
        self.fd = fd
        self.handle: Optional[bytes] = None
        self.fields: Dict[int, bytes] = {}
        self.refused_until = 0.0


def is_sign(data: memoryview) -> bool:
    """Whether a datagram is the answer to SIGN_REQUEST or another of the fixed messages."""
    return len(data) == _REPLY.size and data[:8] == _SIGN_BEGINS


def register_request(size: int) -> bytes:
    """The message that registers a region; its memfd is sent with it."""
    return _REQUEST.pack(_MAGIC, _VERSION, _REGISTER, size, _NO_HANDLE)


def release_request(handle: bytes) -> bytes:
    """The message that releases a region."""
    return _REQUEST.pack(_MAGIC, _VERSION, _RELEASE, 0, handle)


def parse_answer(data: memoryview) -> Tuple[int, bytes]:
    """The code and the handle in the answer to a fixed message."""
    _, _, code, handle, _ = _REPLY.unpack(data)
    return code, handle


class RegionKeeper:
    """The regions of a client that are registered at one socket. Thread-safe.

    Only :meth:`register` waits for the server. A finalizer may call :meth:`release` and :meth:`close` on any thread at
    any time, even on one that is inside a method of this object.

    Attributes:
        generation: incremented when a connection is dropped, which invalidates all handles. Reading needs no lock.
    """

    def __init__(self, path: str) -> None:
        self.generation = 0
        self._path = path
        self._lock = threading.Lock()
        self._socket: Optional[socket.socket] = None
        self._known: Set[Region] = set()
        self._releases: Deque[Tuple[Region, bytes]] = deque()
        self._unanswered = 0
        self._rest_until = 0.0
        self._closed = False

    @property
    def offered(self) -> bool:
        """Whether the server is known to share memory."""
        return self._socket is not None

    def worth_trying(self) -> bool:
        """Whether the server may share memory, as far as is known. Does not wait."""
        return not self._closed and (self._socket is not None or time.monotonic() >= self._rest_until)

    def connect(self) -> bool:
        """Connects if necessary. Whether there is a connection, so that the server may share memory."""
        with self._lock:
            connected = self._connected() is not None
        self._finish()
        return connected

    def register(self, region: Region, timeout: float = PATIENCE) -> bool:
        """Registers the region unless it is registered already; returns whether it is. Asks the server at most once,
        and waits up to ``timeout`` seconds, for PATIENCE at most."""
        if region.handle is not None:
            return True
        deadline = time.monotonic() + min(timeout, PATIENCE)
        rest = REST_AFTER_SILENCE if timeout >= PATIENCE else REST
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        try:
            if region.handle is None and time.monotonic() >= region.refused_until:
                self._register(region, deadline, rest)
        except BaseException:
            self._drop(0.0)  # it is not known whether an answer is still to come
            raise
        finally:
            self._lock.release()
        self._finish()
        return region.handle is not None

    def release(self, region: Region) -> None:
        """Releases a region that its owner no longer uses. Does not wait for the server or for a lock."""
        handle, region.handle = region.handle, None
        if handle is None or _process.forked():
            return
        self._releases.append((region, handle))
        self._finish()

    def check(self) -> None:
        """Forgets all handles if the server has closed the connection."""
        if not self._lock.acquire(blocking=False):
            return  # the thread that uses the connection will notice
        try:
            if self._socket is not None and _has_ended(self._socket):
                self._drop(0.0)
        finally:
            self._lock.release()
        self._finish()

    def forget(self, generation: int) -> None:
        """Drops the connection, and with it all handles, if it is still that of ``generation``: called when the server
        does not know one of its handles."""
        with self._lock:
            if self.generation == generation:
                self._drop(0.0)
        self._finish()

    def close(self) -> None:
        """Closes the connection for good. The regions' memory stays with its owners. Does not wait."""
        self._closed = True
        self._finish()

    def abandon(self) -> None:
        """In a forked child: closes the child's copy of the socket, so that it closes when the parent closes it."""
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    # The methods below run under the lock, except _finish, which takes it.

    def _register(self, region: Region, deadline: float, rest: float) -> None:
        sock = self._connected()
        if sock is None:
            return
        request = register_request(region.size)
        try:
            if not self._await_room(sock, deadline):
                self._drop(rest)
                return
            socket.send_fds(sock, [request], [region.fd], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            while True:
                if not _wait(sock, select.POLLIN, deadline):
                    self._drop(rest)
                    return
                reply = _receive(sock)
                if reply is None:
                    self._drop(REST)
                    return
                if self._unanswered == 0:
                    break
                self._unanswered -= 1
        except OSError:
            self._drop(REST)
            return
        code, handle = reply
        if code == 0:
            region.fields = {}
            region.handle = handle
            self._known.add(region)
        else:
            region.refused_until = time.monotonic() + REST

    def _await_room(self, sock: socket.socket, deadline: float) -> bool:
        """Whether a message can be sent before the deadline. Reads answers to releases while it waits, because a server
        that cannot send them does not read."""
        while True:
            poll = select.poll()
            poll.register(sock, select.POLLOUT | (select.POLLIN if self._unanswered else 0))
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1e3)
            if not ready:
                return False
            if not self._unanswered or not ready[0][1] & select.POLLIN:
                return True
            if _receive(sock) is None:
                raise ConnectionError
            self._unanswered -= 1

    def _connected(self) -> Optional[socket.socket]:
        if self._socket is not None and _has_ended(self._socket):
            self._drop(0.0)
        if self._socket is None and not self._closed and time.monotonic() >= self._rest_until:
            self._socket = connect(self._path)
            if self._socket is None:
                self._rest_until = time.monotonic() + REST
        return self._socket

    def _drop(self, rest: float) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()
        self.generation += 1
        known: List[Region] = list(self._known)
        self._known.clear()
        for region in known:
            region.handle = None
        self._releases.clear()
        self._unanswered = 0
        if rest > 0:
            self._rest_until = time.monotonic() + rest

    def _finish(self) -> None:
        """Sends pending releases, or closes if close() was called. Every holder of the lock calls this after releasing
        it, so that finalizers need not wait for the lock."""
        while (self._releases or (self._closed and self._socket is not None)) and self._lock.acquire(blocking=False):
            try:
                if self._closed:
                    self._drop(0.0)
                elif not self._send_what_goes():
                    return
            finally:
                self._lock.release()

    def _send_what_goes(self) -> bool:
        sock = self._socket
        if sock is None:
            self._releases.clear()
            return False
        try:
            while self._unanswered and _wait(sock, select.POLLIN, 0.0):
                if _receive(sock) is None:
                    self._drop(0.0)
                    return False
                self._unanswered -= 1
            while self._releases:
                region, handle = self._releases[0]
                sock.send(release_request(handle), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
                self._releases.popleft()
                self._known.discard(region)
                self._unanswered += 1
        except BlockingIOError:
            return False  # sent with the next release
        except OSError:
            self._drop(0.0)
            return False
        return True


def connect(path: str) -> Optional[socket.socket]:
    """Connects to the server's local socket; None if nothing listens there or access is denied."""
    sock = None
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)  # a Unix socket connects at once or fails
        sock.connect(os.fsencode(path))
    except OSError:
        if sock is not None:
            sock.close()
        return None
    sock.setblocking(True)
    return sock


def _receive(sock: socket.socket) -> Optional[Tuple[int, bytes]]:
    data = sock.recv(_REPLY.size + 1, socket.MSG_DONTWAIT)
    if len(data) != _REPLY.size:
        return None
    magic, _, code, handle, _ = _REPLY.unpack(data)
    return (code, handle) if magic == _MAGIC else None


def _wait(sock: socket.socket, events: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1e3 if deadline else 0))


def _has_ended(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
