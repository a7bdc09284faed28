#!/usr/bin/env python3
"""Fails on a file of the contract without the options that generators of other languages need, or with its own values.

  proto_options.py FOLDER      that of the .proto files, proto/attnd/v1
"""

import pathlib
import re
import sys

# protoc-gen-go refuses a file without go_package; the other options keep a language's package from changing with a default.
OPTIONS = {
    "csharp_namespace": '"Attnd.V1"',
    "go_package": '"attnd/v1;attndv1"',
    "java_multiple_files": "true",
    "java_outer_classname": '"{stem}Proto"',
    "java_package": '"attnd.v1"',
}


def findings(path: pathlib.Path) -> list[str]:
    found = dict(re.findall(r"^option (\w+) = (.*);$", path.read_text(), re.MULTILINE))
    stem = path.stem.title().replace("_", "")
    wanted = {name: value.format(stem=stem) for name, value in OPTIONS.items()}
    return [f"{path.name}: expected option {n} = {v}, got {found.get(n, 'none')}" for n, v in wanted.items() if found.get(n) != v]


def main() -> int:
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.proto")) if len(sys.argv) == 2 else []
    if not files:
        sys.exit(__doc__)
    bad = [line for path in files for line in findings(path)]
    print(*bad, f"{len(files)} files, {len(bad)} options missing or different", sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
