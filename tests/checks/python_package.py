#!/usr/bin/env python3
"""Fails where the Python package and the project disagree.

  python_package.py ROOT

The package's version is the project's (CMakeLists.txt), and its license file is the project's.
"""

from __future__ import annotations

import pathlib
import re
import sys


def found(pattern: str, text: str, where: str) -> str:
    match = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    if not match:
        sys.exit(f"{where}: found nothing like {pattern}")
    return match.group(1)


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    package = root / "client" / "python"

    def read(path: pathlib.Path) -> str:
        return path.read_text(encoding="utf-8")

    project = found(r"^project\(attnd VERSION (\S+)", read(root / "CMakeLists.txt"), "CMakeLists.txt")
    python = found(r'^VERSION = "(.*?)"$', read(package / "src/attnd/_version.py"), "_version.py")
    faults = []
    if project != python:
        faults.append(f"client/python/src/attnd/_version.py: {python}, and CMakeLists.txt: {project}")
    if read(root / "LICENSE") != read(package / "LICENSE"):
        faults.append("client/python/LICENSE is not LICENSE")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
