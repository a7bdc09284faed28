#!/usr/bin/env python3
"""Fails if a room's source can include a header of a room that only its neighbours' sources use.

  private_links.py ROOT COMPILE_COMMANDS_JSON

Preprocesses sources as they are compiled, with one more include.
"""

import pathlib
import shlex
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
import compile_commands  # noqa: E402

# A source, a header that its room names, and one that it does not.
CASES = [
    ("server/app/main.cc", "server/config/options.h", "server/net/address.h"),
    ("server/attention/engine.cc", "server/wire/codec.h", "server/models/service.h"),
    ("server/wire/codec.cc", "memory/ledger.h", "server/rpc/status.h"),
    ("server/models/service.cc", "model/registry.h", "kernel/attention.h"),
    ("src/bias/bias_table.cc", "tensor/checked_size.h", "model/registry.h"),
]


def preprocess(entry: dict, header: str) -> str:
    """What the compiler says against `header`; empty if it is found."""
    command = shlex.split(entry["command"])
    at = command.index("-o")
    del command[at : at + 2]
    command[command.index("-c")] = "-E"
    run = subprocess.run(command + ["-include", header, "-o", "/dev/null"], cwd=entry["directory"],
                         capture_output=True, text=True)
    return run.stderr if run.returncode else ""


def main() -> int:
    root = pathlib.Path(sys.argv[1]).resolve()
    entries = {entry["file"]: entry for entry in compile_commands.entries(pathlib.Path(sys.argv[2]))}
    problems = []
    for source, named, other in CASES:
        entry = entries[str(root / source)]
        if error := preprocess(entry, named):
            problems.append(f"{source} cannot include {named}: {error}")
        error = preprocess(entry, other)
        if f"{other}: No such file" not in error and f"'{other}' file not found" not in error:  # GCC's words, Clang's
            problems.append(f"{source} can include {other}, which its room does not name")
    print("\n".join(problems) or f"{len(CASES)} wrong includes do not compile")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
