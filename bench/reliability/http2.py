"""gRPC calls over HTTP/2 by hand, as an attacker makes them: what is sent, and whether it reads, is its own choice.

Not thread-safe: whoever owns a Connection pumps it. There is no HPACK decoder. A status is found because gRPC's server
writes the first one of a connection literally, so a caller that wants to know it makes a connection for each call.
"""

from __future__ import annotations

import collections
import dataclasses
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
BINARY_METADATA = 0xFE03  # gRPC's: headers whose names end in -bin come as they are, not in base64
LARGEST_WINDOW = (1 << 31) - 1
FRAME_BYTES = 16384
KEPT_BYTES = 4096

Buffer = bytes | memoryview


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def hpack_text(text: bytes) -> bytes:
    """A string without Huffman's code: its length with a prefix of 7 bits, then its bytes."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, out = len(text) - 127, bytearray([127])
    while rest >= 128:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out) + text


def headers_block(path: str, more: Iterable[tuple[str, str]] = ()) -> bytes:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "attnd")]
    fields += [("content-type", "application/grpc"), ("te", "trailers"), *more]
    return b"".join(b"\0" + hpack_text(name.encode()) + hpack_text(value.encode()) for name, value in fields)


def connect(target: str, source: str | None = None) -> socket.socket:
    """`target`: host:port or unix:path. `source`: the address to call from, such as 127.0.0.2."""
    if target.startswith("unix:"):
        made = socket.socket(socket.AF_UNIX)
        made.connect(target.removeprefix("unix:"))
        return made
    host, port = target.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10, source_address=(source, 0) if source else None)


@dataclasses.dataclass
class Stream:
    id: int
    window: int  # what the server still takes
    pending: collections.deque[memoryview] = dataclasses.field(default_factory=collections.deque)
    end_after: bool = False
    received: int = 0  # bytes of DATA
    data: bytes = b""  # the first of them
    block: bytes = b""  # header blocks received
    closed: bool = False

    def status(self) -> int | None:
        """gRPC's code, if the server has sent one that can be read; see above."""
        name, at = b"grpc-status", self.block.find(b"grpc-status")
        if at < 0:
            return None
        at += len(name)
        return int(self.block[at + 1 : at + 1 + self.block[at]])

    def message(self) -> str:
        name, at = b"grpc-message", self.block.find(b"grpc-message")
        if at < 0:
            return ""
        at += len(name)
        length = self.block[at] & 127
        at += 1
        if length == 127:
            shift = 0
            while True:
                byte = self.block[at]
                length += (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if byte < 128:
                    break
        return self.block[at : at + length].decode(errors="replace")


class Connection:
    """`window`: how much of each result the server may send; 0 reads none, while the connection lives. `frame_bytes`:
    most bytes of a message in a frame; 0: as many as the server takes."""

    def __init__(self, target: str, source: str | None = None, window: int = LARGEST_WINDOW, frame_bytes: int = 0):
        self.socket = connect(target, source)
        self.socket.setblocking(False)
        self.streams: dict[int, Stream] = {}
        self.closed = False
        self.goaway = False
        self._next_id = 1
        self._window = 65535
        self._initial_window = 65535
        self._frame_bytes = frame_bytes or FRAME_BYTES
        self._frames_grow = frame_bytes == 0
        self._in = bytearray()
        self._out: collections.deque[memoryview] = collections.deque()
        settings = struct.pack(">HIHI", INITIAL_WINDOW_SIZE, window, BINARY_METADATA, 1)
        self.raw(PREFACE + frame(SETTINGS, 0, 0, settings))
        self.raw(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65535)))

    def raw(self, payload: Buffer) -> None:
        """Queues bytes as they are."""
        self._out.append(memoryview(payload))

    def open(self, path: str, more: Iterable[tuple[str, str]] = (), last: bool = True) -> Stream:
        """Begins a call; its headers are queued. They may be not the `last` ones."""
        stream = Stream(self._next_id, self._initial_window)
        self._next_id += 2
        self.streams[stream.id] = stream
        block = headers_block(path, more)
        first, rest = block[:FRAME_BYTES], block[FRAME_BYTES:]
        self.raw(frame(HEADERS, 0 if rest or not last else END_HEADERS, stream.id, first))
        while rest:
            first, rest = rest[:FRAME_BYTES], rest[FRAME_BYTES:]
            self.raw(frame(CONTINUATION, 0 if rest or not last else END_HEADERS, stream.id, first))
        return stream

    def send(self, stream: Stream, message: Iterable[Buffer], end: bool = False, compressed: bool = False) -> None:
        """Queues a message for as soon as the server has room for it."""
        parts = [memoryview(part) for part in message if len(part)]
        size = sum(len(part) for part in parts)
        stream.pending.append(memoryview(struct.pack(">BI", compressed, size)))
        stream.pending.extend(parts)
        stream.end_after = end

    def sent(self) -> bool:
        """Whether nothing is left to send."""
        return not self._out and not any(stream.pending for stream in self.streams.values())

    def pump(self, seconds: float, read: bool = True) -> None:
        """Sends what can be sent and, if `read`, reads what has come, waiting for `seconds` at most."""
        if self.closed:
            return
        self._fill()
        want_read, want_write = [self.socket] if read else [], [self.socket] if self._out else []
        ready = select.select(want_read, want_write, [], max(seconds, 0))
        try:
            if ready[1]:
                self._write()
            if ready[0]:
                self._read()
        except BlockingIOError:
            pass
        except OSError:
            self._end()

    def pump_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Pumps until done() or the connection's end; whether done()."""
        deadline = time.monotonic() + seconds
        while not done() and not self.closed and time.monotonic() < deadline:
            self.pump(min(0.05, deadline - time.monotonic()))
        return done()

    def close(self) -> None:
        self.socket.close()
        self.closed = True

    def _end(self) -> None:
        self.close()
        for stream in self.streams.values():
            stream.closed = True

    def _fill(self) -> None:
        """Turns pending messages into frames, as far as the server's windows go and for about a MiB."""
        for stream in list(self.streams.values()):
            while stream.pending and len(self._out) < 128 and not stream.closed:
                head = stream.pending[0]
                size = min(len(head), self._frame_bytes, self._window, stream.window)
                if size <= 0:
                    break
                last = size == len(head) and len(stream.pending) == 1
                flags = END_STREAM if last and stream.end_after else 0
                self._out.append(memoryview(struct.pack(">BHBBI", size >> 16, size & 0xFFFF, DATA, flags, stream.id)))
                self._out.append(head[:size])
                self._window -= size
                stream.window -= size
                if size == len(head):
                    stream.pending.popleft()
                else:
                    stream.pending[0] = head[size:]

    def _write(self) -> None:
        batch = [self._out[i] for i in range(min(len(self._out), 128))]
        count = self.socket.sendmsg(batch)
        while count > 0:
            head = self._out.popleft()
            if count < len(head):
                self._out.appendleft(head[count:])
            count -= min(count, len(head))

    def _read(self) -> None:
        received = self.socket.recv(1 << 18)
        if not received:
            self._end()
            return
        self._in += received
        at = 0
        while len(self._in) - at >= 9:
            size = int.from_bytes(self._in[at : at + 3], "big")
            if len(self._in) - at < 9 + size:
                break
            kind, flags = self._in[at + 3], self._in[at + 4]
            stream = int.from_bytes(self._in[at + 5 : at + 9], "big") & LARGEST_WINDOW
            self._take(kind, flags, stream, bytes(self._in[at + 9 : at + 9 + size]))
            at += 9 + size
        del self._in[:at]

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        stream = self.streams.get(stream_id)
        if kind == SETTINGS and not flags & ACK:
            self._settings(payload)
        elif kind == PING and not flags & ACK:
            self.raw(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.goaway = True
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload, "big") & LARGEST_WINDOW
            if stream_id == 0:
                self._window += more
            elif stream is not None:
                stream.window += more
        elif stream is not None:
            if kind == DATA:
                stream.received += len(payload)
                stream.data += payload[: KEPT_BYTES - len(stream.data)] if len(stream.data) < KEPT_BYTES else b""
            elif kind in (HEADERS, CONTINUATION):
                stream.block += payload
            if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
                stream.closed = True
                stream.pending.clear()

    def _settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == INITIAL_WINDOW_SIZE:
                for stream in self.streams.values():
                    stream.window += value - self._initial_window
                self._initial_window = value
            elif name == MAX_FRAME_SIZE and self._frames_grow:
                self._frame_bytes = min(value, 1 << 20)
        self.raw(frame(SETTINGS, ACK, 0))


def unary(
    target: str,
    path: str,
    message: Iterable[Buffer],
    source: str | None = None,
    seconds: float = 120,
    frame_bytes: int = 0,
) -> Stream:
    """One call over a connection of its own, until it has ended."""
    connection = Connection(target, source, frame_bytes=frame_bytes)
    stream = connection.open(path)
    connection.send(stream, message, end=True)
    connection.pump_until(lambda: stream.closed, seconds)
    connection.close()
    return stream
