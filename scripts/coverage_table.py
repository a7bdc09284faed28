#!/usr/bin/env python3
"""Line coverage by room, as a Markdown table, from lcov's records; used by scripts/coverage.sh.

  coverage_table.py ROOT LINES.lcov UNCOVERED.txt

A line that is compiled several times (a header, a kernel's instruction sets) is covered if it runs in one of them.
"""

import collections
import pathlib
import sys

DEPTH_TWO = ("src", "server", "client")


def room(path: pathlib.PurePath) -> str | None:
    if path.parts[0] not in DEPTH_TWO or len(path.parts) < 3:
        return None
    return "/".join(path.parts[:2])


def read(root: pathlib.Path, lcov: pathlib.Path) -> dict[pathlib.PurePath, dict[int, int]]:
    lines: dict[pathlib.PurePath, dict[int, int]] = collections.defaultdict(dict)
    current = None
    for record in lcov.read_text().splitlines():
        kind, _, rest = record.partition(":")
        if kind == "SF":
            path = pathlib.Path(rest).resolve()
            current = path.relative_to(root) if path.is_relative_to(root) else None
        elif kind == "DA" and current is not None:
            number, count = (int(n) for n in rest.split(",")[:2])
            lines[current][number] = max(lines[current].get(number, 0), count)
    return lines


def ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def row(name: str, covered: int, total: int) -> str:
    return f"| {name} | {total} | {total - covered} | {100 * covered / total:.1f} % |"


def main() -> int:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[1]).resolve()
    rooms: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    uncovered = []
    for path, lines in sorted(read(root, pathlib.Path(sys.argv[2])).items()):
        name = room(path)
        if name is None or not lines:
            continue
        missed = sorted(number for number, count in lines.items() if count == 0)
        rooms[name][0] += len(lines) - len(missed)
        rooms[name][1] += len(lines)
        if missed:
            source = (root / path).read_text().splitlines()
            uncovered.append(f"{path}: {ranges(missed)}")
            uncovered += [f"  {number:4} {source[number - 1]}" for number in missed]
    if not rooms:
        sys.exit("no line of src, server or client is in the records")
    pathlib.Path(sys.argv[3]).write_text("\n".join(uncovered) + "\n")
    print("| room | lines | not reached | reached |", "|---|---:|---:|---:|", sep="\n")
    order = sorted(rooms, key=lambda name: (DEPTH_TWO.index(name.split("/")[0]), name))
    for name in order:
        print(row(f"`{name}`", *rooms[name]))
    print(row("all", *(sum(values) for values in zip(*rooms.values()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
