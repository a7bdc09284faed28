"""A worker for the tests of contest.py, with worker.py's protocol. The name of a path or library says how it fails."""

from __future__ import annotations

import json
import os
import sys
import time


def prepare(command: dict) -> dict:
    if command["path"] == "dies_in_prepare":
        os._exit(3)
    if command["path"] == "fails_in_prepare":
        return {"error": "ValueError: output differs | from the formula"}
    return {"id": command["path"], "max_error": 0.0, "note": "", "huge_fraction": 0.25}


def timed(command: dict) -> dict:
    if command["id"] == "dies_in_time":
        os._exit(4)
    if command["id"] == "hangs":
        time.sleep(600)
    if command["id"] == "talks_nonsense":
        return None
    return {"ms": [2.0, 1.0, 3.0]}


def main() -> None:
    if sys.argv[1] == "dies_at_once":
        os._exit(5)
    for line in sys.stdin:
        command = json.loads(line)
        if sys.argv[1] == "no_import":
            answer = {"error": "ModuleNotFoundError: No module named 'nothing'"}
        elif command["op"] == "prepare":
            answer = prepare(command)
        elif command["op"] == "time":
            answer = timed(command)
        else:
            answer = {"versions": {}}
        print("nonsense" if answer is None else json.dumps(answer), flush=True)
        if command.get("id") == "dies_between_rounds":
            os._exit(6)


if __name__ == "__main__":
    main()
