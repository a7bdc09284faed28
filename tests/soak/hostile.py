#!/usr/bin/env python3
"""The hostile part of the soak's load: the attacks of bench/reliability, one after the other, until SIGTERM.

  hostile.py --target HOST:PORT --bytes B [--each SECONDS]

B is the server's --max_inflight_bytes. Attacks come from 127.0.0.2. Prints a line for each attack at the end: how often
it ran, and how many calls it began. Fails if an attack could not run.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import signal
import subprocess
import sys

ATTACKS = pathlib.Path(__file__).resolve().parents[2] / "bench/reliability"
SOURCE = "127.0.0.2"
KINDS: dict[str, list[str]] = {
    "results unread, a stream": ["unread.py", "--method=stream"],
    "results unread, 45 calls": ["unread.py", "--method=unary"],
    "results unread, 20 connections": ["unread.py", "--method=unary", "--connections=20"],
    "results left in the socket": ["unread.py", "--method=unary", "--how=socket"],
    "headers without a message": ["slow.py", "--kind=headers", "--connections=2"],
    "parts of messages": ["slow.py", "--kind=partial", "--streams=20"],
    "messages byte by byte": ["slow.py", "--kind=trickle", "--streams=20"],
    "streams reset": ["slow.py", "--kind=resets"],
    "a megabyte of headers": ["slow.py", "--kind=metadata", "--streams=5"],
    "compressed messages": ["slow.py", "--kind=bomb", "--streams=5"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="host:port")
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--each", type=float, default=10, help="seconds that an attack takes")
    options = parser.parse_args()
    running: subprocess.Popen[str] | None = None
    over = False

    def end(*_: object) -> None:
        nonlocal over
        over = True
        if running is not None:
            running.terminate()

    signal.signal(signal.SIGTERM, end)
    runs: collections.Counter[str] = collections.Counter()
    begun: collections.Counter[str] = collections.Counter()
    while not over:
        name, (program, *flags) = list(KINDS.items())[sum(runs.values()) % len(KINDS)]
        if program == "unread.py":
            flags.append(f"--bytes={options.bytes}")
        command = [sys.executable, "-B", str(ATTACKS / program), f"--target={options.target}", f"--source={SOURCE}"]
        running = subprocess.Popen([*command, f"--seconds={options.each}", *flags], stdout=subprocess.PIPE, text=True)
        if over:
            running.terminate()
        output, _ = running.communicate()
        last = output.strip().splitlines()[-1:]
        if not over and (running.returncode != 0 or not last or not last[0].startswith("{")):
            sys.exit(f"{name}: the attack ended with status {running.returncode}")
        runs[name] += 1
        if last and last[0].startswith("{"):
            begun[name] += json.loads(last[0])["begun"]
    for name, times in runs.items():
        print(f"{begun[name]:10}  {name}, {times} times", flush=True)


if __name__ == "__main__":
    main()
