#!/usr/bin/env python3
"""Callers whose requests do not all fit into what the server has: who is served, who is refused, and with what hint.

  budget.py --target TARGET [--callers 16] [--calls 4] [--repeat]

Each caller sends calls of 12 MiB (8 heads, 2048 queries and keys, 64 elements, fp32), one after the other. With
--repeat it waits after a refusal for as long as the server says (google.rpc.RetryInfo or grpc-retry-pushback-ms; 50 ms
where it says nothing), and sends the call again, 20 times at most. Prints a line of JSON: "calls", "served", "refused"
(attempts), "hints" (refusals that say when to come back), the first "message" of a refusal, and "seconds" in all.
"""

from __future__ import annotations

import argparse
import json
import threading
import time

import http2
import messages

CALL = messages.Call(
    heads=8, queries=2048, keys=2048, dim=64, value_dim=64, dtype=messages.FP32, output_dtype=messages.FP32
)
ATTEMPTS = 20


def come_back(block: bytes) -> float | None:
    """When the server says to try again, in seconds from now."""
    name = b"grpc-retry-pushback-ms"
    if (at := block.find(name)) >= 0:
        at += len(name)
        return int(block[at + 1 : at + 1 + block[at]]) / 1000
    # An Any of the status details: the type's name, then field 2 with RetryInfo, whose field 1 is a Duration.
    name = b"google.rpc.RetryInfo"
    if (at := block.find(name)) < 0:
        return None
    at += len(name) + 1
    size, at = messages.read_varint(block, at)
    delay = messages.fields(bytes(messages.fields(block[at : at + size]).get(1, b"")))
    return int(delay.get(1, 0)) + int(delay.get(2, 0)) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="host:port or unix:path")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--calls", type=int, default=4, help="of each caller")
    parser.add_argument("--repeat", action="store_true")
    options = parser.parse_args()
    lock = threading.Lock()
    report = {"calls": options.callers * options.calls, "served": 0, "refused": 0, "hints": 0, "message": ""}

    def call() -> None:
        for _ in range(ATTEMPTS if options.repeat else 1):
            stream = http2.unary(options.target, messages.COMPUTE, CALL.message())
            hint = come_back(stream.block)
            with lock:
                if stream.status() == 0:
                    report["served"] += 1
                    return
                report["refused"] += 1
                report["hints"] += hint is not None
                report["message"] = report["message"] or stream.message()
            if options.repeat:
                time.sleep(0.05 if hint is None else hint)

    def work() -> None:
        for _ in range(options.calls):
            call()

    start = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(options.callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({**report, "seconds": round(time.monotonic() - start, 2)}), flush=True)


if __name__ == "__main__":
    main()
