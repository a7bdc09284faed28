#!/usr/bin/env python3
"""The largest requests that a server takes, one or many at once: what memory and time they cost it.

  largest.py --target TARGET --kind KIND [--door tcp|stream|shared] [--at_once N] [--times N] [--source ADDRESS]

--kind units       40 million sequences of one query and one key: 229 MiB sent, or some hundred bytes by shared memory
       some-units  5 million of them
       fragments   a million of them, which arrive in frames of 256 bytes (by --door tcp)
       packing     keys and values of 240 MiB in half precision, which are packed as fp32
       result      a result of 256 MiB for a request of some KiB
       ragged      a batch of 200,000 sequences, each of its own length
       bias        the largest window of GetBias, of a model named t5-tiny
--door tcp       calls by gRPC; --door stream the same as the only piece of a stream
--door shared    the target is unix:PATH: tensors and results in memory that nobody has touched, local calls

Prints a line of JSON: "served" and "refused" calls, the "codes" and the first "message" of the latter, and "seconds",
the longest call.
"""

from __future__ import annotations

import argparse
import collections
import json
import threading
import time

import door
import http2
import messages

CALLS = {
    "units": messages.Call(batch=40_000_000),
    "some-units": messages.Call(batch=5_000_000),
    "fragments": messages.Call(batch=1_000_000),
    "packing": messages.Call(heads=8, queries=256, keys=122_000, dim=64, value_dim=64),
    "result": messages.Call(queries=16_384, value_dim=4096, output_dtype=messages.FP32),
    "ragged": messages.Call(
        batch=200_000,
        queries=4,
        keys=4,
        dim=16,
        value_dim=16,
        query_lengths=tuple(1 + i % 4 for i in range(200_000)),
        key_lengths=tuple(1 + i % 3 for i in range(200_000)),
    ),
}
FRAGMENT_BYTES = 256
BIAS_SIDE = 2048  # squared: max_bias_cells


def by_grpc(options: argparse.Namespace) -> tuple[int | None, str]:
    path, body = messages.BIAS, messages.bias("t5-tiny", BIAS_SIDE, BIAS_SIDE)
    if options.kind != "bias":
        path, body = messages.COMPUTE, CALLS[options.kind].message()
    frame_bytes = FRAGMENT_BYTES if options.kind == "fragments" else 0
    stream = http2.unary(options.target, path, body, options.source, options.patience, frame_bytes)
    return stream.status(), stream.message()


def by_stream(options: argparse.Namespace) -> tuple[int | None, str]:
    piece = CALLS[options.kind].piece(1)
    stream = http2.unary(options.target, messages.STREAM, piece, options.source, options.patience)
    if len(stream.data) < 5:
        return stream.status() or None, stream.message() or "no answer"
    # The first fields stand before the tensors; what follows is not whole.
    code, message = messages.answer(stream.data[5:])
    return code, message


def by_shared_memory(options: argparse.Namespace) -> tuple[int | None, str]:
    call = CALLS[options.kind]
    offsets, size = call.places()
    connection = door.Door(options.target, options.patience)
    try:
        code, region, message = connection.register(size)
        if code != 0:
            return code, message
        request = call.shared(region, offsets)
        if len(request) > 60_000:  # no datagram has room for it
            stream = http2.unary(options.target, messages.COMPUTE, [request], seconds=options.patience)
            return stream.status(), stream.message()
        connection.hello()
        connection.call(request)
        answer = connection.answer()
        return answer.code, answer.message
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="host:port or unix:path")
    parser.add_argument("--source", help="the address to call from")
    parser.add_argument("--kind", choices=(*CALLS, "bias"), required=True)
    parser.add_argument("--door", choices=("tcp", "stream", "shared"), default="tcp")
    parser.add_argument("--at_once", type=int, default=1)
    parser.add_argument("--times", type=int, default=1, help="calls of each of those at once")
    parser.add_argument("--patience", type=float, default=120, help="seconds for one call")
    options = parser.parse_args()
    if options.door != "tcp" and options.kind == "bias":
        parser.error("bias is asked for by --door tcp alone")
    once = {"tcp": by_grpc, "stream": by_stream, "shared": by_shared_memory}[options.door]
    outcomes: list[tuple[int | None, str, float]] = []

    def work() -> None:
        for _ in range(options.times):
            start = time.monotonic()
            try:
                code, message = once(options)
            except OSError as error:
                code, message = None, str(error)
            outcomes.append((code, message, time.monotonic() - start))

    threads = [threading.Thread(target=work) for _ in range(options.at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [outcome for outcome in outcomes if outcome[0] != 0]
    report = {
        "served": len(outcomes) - len(refused),
        "refused": len(refused),
        "codes": dict(collections.Counter(str(code) for code, _, _ in refused)),
        "message": refused[0][1] if refused else "",
        "seconds": round(max(seconds for _, _, seconds in outcomes), 3),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
