#!/usr/bin/env python3
"""Fails if a source of ours is compiled without -Werror=undef: an #if on an undefined macro would be silently false.

  undef_flag.py ROOT COMPILE_COMMANDS_JSON
"""

import json
import pathlib
import sys

FOLDERS = ("src", "server", "client", "bench", "tests")


def main() -> int:
    root, commands = pathlib.Path(sys.argv[1]).resolve(), json.loads(pathlib.Path(sys.argv[2]).read_text())
    checked, missing = 0, set()
    for entry in commands:
        source = pathlib.Path(entry["file"])
        if not any(source.is_relative_to(root / folder) for folder in FOLDERS):
            continue
        checked += 1
        if "-Werror=undef" not in entry["command"]:
            missing.add(str(source.relative_to(root)))
    for source in sorted(missing):
        print(f"{source}: compiled without -Werror=undef; link attnd_warnings")
    if checked < 50:
        sys.exit(f"only {checked} sources in {sys.argv[2]}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
