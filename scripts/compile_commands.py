#!/usr/bin/env python3
"""Gives each source of a build with ATTND_UNITY its own compile command.

usage: compile_commands.py BUILD OUT

Reads BUILD/compile_commands.json, in which sources that are compiled together have one entry, and writes
OUT/compile_commands.json, for tools that look at single files (clang-tidy, include-what-you-use).
"""

import json
import pathlib
import re
import sys

INCLUDED = re.compile(r'^#include "(.*)"$', re.MULTILINE)


def entries(database: pathlib.Path) -> list:
    """The entries of a compile_commands.json, with one for each source of a unity source."""
    result = []
    for entry in json.loads(database.read_text(encoding="utf-8")):
        unity = pathlib.Path(entry["file"])
        if unity.parent.name != "Unity":
            result.append(entry)
            continue
        for source in INCLUDED.findall(unity.read_text(encoding="utf-8")):
            command = entry["command"].replace(f"-c {unity}", f"-c {source}")
            result.append({**entry, "file": source, "command": command})
    return result


def main() -> int:
    build, out = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(entries(build / "compile_commands.json"), indent=1)
    (out / "compile_commands.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
