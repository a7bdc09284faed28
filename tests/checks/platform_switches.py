#!/usr/bin/env python3
"""Fails on an #ifdef, an #ifndef or a defined() in C++ sources, but for src/platform/platform.h.

Such a test is false, without a word, where the header that defines its macro was not included. #if on the macros of
platform.h is not: -Werror=undef refuses it there.

  platform_switches.py ROOT [FILE...]     all C++ files of the source tree ROOT, or only these
"""

import pathlib
import re
import sys

ALLOWED = "src/platform/platform.h"
FOLDERS = ("src", "server", "client", "bench", "tests", "examples", "proto", "cmake")
ENDINGS = {".cc", ".h", ".inc"}
SWITCH = re.compile(r"^\s*#\s*(ifdef|ifndef|elifdef|elifndef)\b|^\s*#\s*(el)?if\b.*\bdefined\b")


def findings(path: pathlib.Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [f"{path}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if SWITCH.search(line)]


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    files = [pathlib.Path(name) for name in sys.argv[2:]]
    if not files:
        files = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*")) if path.suffix in ENDINGS]
        files = [path for path in files if path.relative_to(root).as_posix() != ALLOWED]
        if len(files) < 100:
            sys.exit(f"only {len(files)} C++ files under {root}: is that the source tree?")
    found = [line for path in files for line in findings(path)]
    for line in found:
        print(f"{line}\n  use #if on a macro of {ALLOWED}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
