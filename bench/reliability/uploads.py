#!/usr/bin/env python3
"""Bias tables that fill a server, and the largest calls about models.

  uploads.py --target TARGET --kind KIND [--count N] [--source ADDRESS]

--kind tables   --count tables (53) of 16 MiB each, all of one model
       spread   --count models (53) of such a table each
       far      --count models (53) of a T5 table of some hundred bytes, which takes 64 MiB by its max_distance
       largest  a table of 64 MiB, --count times (1) under new names
       many     --count small models (1000), and the list of them
       load     --count times (1) LoadModel of FILE, below the server's model root, under new names: --file FILE

Prints a line of JSON: "served" and "refused" calls, the "codes" and the first "message" of the latter, and "seconds",
the longest call.
"""

from __future__ import annotations

import argparse
import collections
import json
import time
from collections.abc import Iterator

import http2
import messages

MIB = 1 << 20
DEFAULT_COUNTS = {"tables": 53, "spread": 53, "far": 53, "largest": 1, "many": 999, "load": 1}
LARGEST_TABLE = 1 << 24  # max_table_values


def calls(options: argparse.Namespace) -> Iterator[tuple[str, list[http2.Buffer]]]:
    count, table = options.count or DEFAULT_COUNTS[options.kind], 4 * MIB
    kinds = {
        "tables": lambda i: (messages.UPLOAD, messages.upload("full", f"encoder.{i}", table)),
        "spread": lambda i: (messages.UPLOAD, messages.upload(f"full{i}", "", table)),
        "far": lambda i: (messages.UPLOAD, messages.upload_t5(f"far{i}", LARGEST_TABLE - 1)),
        "largest": lambda i: (messages.UPLOAD, messages.upload(f"largest{i}", "", LARGEST_TABLE)),
        "many": lambda i: (messages.UPLOAD, messages.upload(f"small{i}", "", 8)),
        "load": lambda i: (messages.LOAD, messages.load(options.file, f"loaded{i}")),
    }
    yield from map(kinds[options.kind], range(count))
    if options.kind == "many":
        for _ in range(5):
            yield messages.LIST, messages.list_models()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="host:port or unix:path")
    parser.add_argument("--source", help="the address to call from")
    parser.add_argument("--kind", choices=tuple(DEFAULT_COUNTS), required=True)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--file", help="of --kind load")
    options = parser.parse_args()
    if options.kind == "load" and not options.file:
        parser.error("--kind load needs --file")
    served, codes, message, longest = 0, collections.Counter[str](), "", 0.0
    for path, body in calls(options):
        start = time.monotonic()
        stream = http2.unary(options.target, path, body, options.source)
        longest = max(longest, time.monotonic() - start)
        if stream.status() == 0:
            served += 1
        else:
            codes[str(stream.status())] += 1
            message = message or stream.message()
    refused = sum(codes.values())
    report = {"served": served, "refused": refused, "codes": codes, "message": message, "seconds": round(longest, 3)}
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
