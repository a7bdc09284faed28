#!/usr/bin/env python3
"""links.py finds what leads nowhere, and nothing else: a table of Markdown and what it must say about it."""

import pathlib
import subprocess
import sys
import tempfile

TREE = {
    "src/kernel/tile.h": "",
    "src/kernel/tile.cc": "",
    "scripts/test.sh": "",
    ".ci/run": "",
    "docs/other.md": '# A `Tile`, its *keys* & [rows](x)\n\n## Twice\n\n## Twice\n\n<a id="by-hand"></a>\n\n```\n# no heading\n```\n',
    "docs/beside.py": "",
    "build/ignored.md": "[broken](nowhere.md)\n",
}

# The document docs/page.md, and the findings without the leading "docs/page.md:".
CASES = [
    ("[a](other.md) [b](../src/kernel) ![c](../src/kernel/tile.h \"title\")", []),
    ("[a](https://example.com/x) [b](mailto:a@example.com) [c](//example.com)", []),
    ("one\n\ntwo [a](nowhere.md)", ["3: no file nowhere.md"]),
    ("[a](/docs/other.md)", ["1: /docs/other.md leads out of the repository"]),
    ("[a](../../x.md)", ["1: ../../x.md leads out of the repository"]),
    ("[a][r]\n\n[r]: nowhere.md", ["3: no file nowhere.md"]),
    ('<img src="nowhere.svg">', ["1: no file nowhere.svg"]),
    ("[a](other.md#a-tile-its-keys--rows) [b](other.md#twice-1) [c](other.md#by-hand)", []),
    ("[a](other.md#twice-2)", ["1: no heading other.md#twice-2"]),
    ("[a](other.md#no-heading)", ["1: no heading other.md#no-heading"]),
    ("# Here\n\n[a](#here) [b](#there)", ["3: no heading #there"]),
    ("[a](../src/kernel/tile.h#L3)", ["1: no heading ../src/kernel/tile.h#L3"]),
    ("`[a](nowhere.md)`", []),
    ("`src/kernel/tile.h` `src/kernel/tile.{h,cc}:12` `src/kernel/` `.ci/run` `src/*/tile.*`", []),
    ("`src/kernel/gone.h`", ["1: no file src/kernel/gone.h"]),
    ("`src/kernel/tile.{h,inc}`", ["1: no file src/kernel/tile.inc"]),
    ("`src/*/gone.*`", ["1: no file src/*/gone.*"]),
    ("`kernel/tile.h` `beside.py` `../scripts/test.sh`", []),
    ("`kernel/gone.h`", ["1: no file kernel/gone.h"]),
    ("`gone.py`", ["1: no file gone.py"]),
    ("`scripts/test.sh --preset dev`", []),
    ("`scripts/gone.sh --preset dev`", ["1: no file scripts/gone.sh"]),
    ("Run\n\n    scripts/gone.sh x\n", ["3: no file scripts/gone.sh"]),
    ("```sh\nscripts/gone.sh x\n```\n", ["2: no file scripts/gone.sh"]),
    ("`config.json` `/dev/shm` `grpc.v1.Health/Check` `a/b` `build/peers` `Health/Check` `google/any.h` `-Isrc/x` `*.h`", []),
]


def run(root: pathlib.Path) -> tuple[int, list[str]]:
    script = pathlib.Path(__file__).parent / "links.py"
    done = subprocess.run([sys.executable, script, root], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()[:-1]


def main() -> int:
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in TREE.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        # Links of this document are not the subject.
        (root / "x").touch()
        (root / "docs/x").touch()
        for text, wanted in CASES:
            (root / "docs/page.md").write_text(text)
            status, found = run(root)
            wanted = [f"docs/page.md:{line}" for line in wanted]
            if found != wanted or status != (1 if wanted else 0):
                failures += 1
                print(f"{text!r}\n  expected {wanted}\n  found    {found}, exit status {status}")
    print(f"{len(CASES)} cases, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
