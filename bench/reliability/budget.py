#!/usr/bin/env python3
"""Callers whose requests do not all fit into what the server has: who is served, who is refused, and with what hint.

  budget.py --target TARGET [--callers 16] [--calls 4] [--repeat]

Each caller sends calls of 12 MiB (8 heads, 2048 queries and keys, 64 elements, fp32), one after the other. With --repeat
it waits after a refusal for as long as the server says (grpc-retry-pushback-ms, or 50 ms where it says nothing), and sends
the call again, 20 times at most. Prints a line of JSON: "calls", "served", "refused" (attempts), "hints" (refusals that
say when to come back), the first "message" of a refusal, and "seconds" in all.
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


def pushback_ms(block: bytes) -> int | None:
    name = b"grpc-retry-pushback-ms"
    at = block.find(name)
    if at < 0:
        return None
    at += len(name)
    return int(block[at + 1 : at + 1 + block[at]])


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
            hint = pushback_ms(stream.block)
            with lock:
                if stream.status() == 0:
                    report["served"] += 1
                    return
                report["refused"] += 1
                report["hints"] += hint is not None or b"RetryInfo" in stream.block
                report["message"] = report["message"] or stream.message()
            if options.repeat:
                time.sleep((50 if hint is None else hint) / 1000)

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
