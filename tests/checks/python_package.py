#!/usr/bin/env python3
"""Fails where the Python package and the project disagree.

  python_package.py ROOT

The package's version is the project's (CMakeLists.txt), its license file is the project's, and the Python example in
README.md is the first one of client/python/README.md, to the letter.
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
    example = r"^```python\n(.*?)^```$"
    faults = []
    if project != python:
        faults.append(f"client/python/src/attnd/_version.py: {python}, and CMakeLists.txt: {project}")
    if read(root / "LICENSE") != read(package / "LICENSE"):
        faults.append("client/python/LICENSE is not LICENSE")
    quoted = [found(example, read(path), str(path)) for path in (root / "README.md", package / "README.md")]
    if quoted[0] != quoted[1]:
        faults.append("README.md and client/python/README.md begin with different Python examples")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
