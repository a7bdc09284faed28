#!/usr/bin/env python3
"""Callers that share memory with the server and never touch it: each as much as the server takes from a connection.

  hoard.py --target unix:PATH [--connections N] [--bytes B] [--seconds S]

Each of N connections (2) shares B bytes (by default half of the default of --max_shared_bytes), and halves of it where
that is refused, down to a MiB. Another caller then shares a MiB: where this runs as root, one of another user, UID
(65534), for whom the socket must be open. Prints "holding" and a line of JSON: "held" bytes, and
"code" and "message" of the other caller's answer. The memory is kept for S seconds more.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import door

MIB = 1 << 20


def hoard(connection: door.Door, size: int) -> int:
    """Shares `size` bytes and then halves, until not even a MiB is taken; how many were."""
    held = 0
    while size >= MIB:
        code, _, _ = connection.register(size)
        if code == 0:
            held += size
        else:
            size //= 2
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="unix:path")
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--bytes", type=int, default=4 << 30)
    parser.add_argument("--uid", type=int, default=65534)
    parser.add_argument("--seconds", type=float, default=0)
    options = parser.parse_args()
    connections = [door.Door(options.target) for _ in range(options.connections)]
    held = sum(hoard(connection, options.bytes) for connection in connections)
    print("holding", flush=True)
    if os.geteuid() == 0:
        os.seteuid(options.uid)  # as which the next socket is opened
    code, _, message = door.Door(options.target).register(MIB)
    print(json.dumps({"held": held, "code": code, "message": message}), flush=True)
    time.sleep(options.seconds)


if __name__ == "__main__":
    main()
