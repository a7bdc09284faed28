#!/usr/bin/env python3
"""Holds the arrows between rooms: who includes whose headers.

Fails if a room includes a header of a room that its CMake target does not name, names one that it does not include, if
arrows lead in a circle, or if the pictures in docs/architecture.md are not those of the includes.

  arrows.py [--arrows FILE] [--write] [--pretend FILE=INCLUDE]

--arrows is what CMake wrote, build/rooms/arrows.txt unless told. --write mends the pictures; --pretend takes FILE as if it had one more
#include "INCLUDE", to see that the check fails.
"""

import argparse
import pathlib
import re
import sys

PAGE = "docs/architecture.md"
SERVER_MOST = 25  # arrows within server/
FLAT_MOST = 3  # C++ files that stand in server/ and in no room
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def folders(path: str) -> list[str]:
    if path == "client":
        return ["client/include/attnd", "client/src"]
    if path in ("attnctl", "proto"):
        return {"attnctl": ["client/attnctl"], "proto": ["proto/attnd"]}[path]
    return [path if path.startswith("server/") else f"src/{path}"]


def room_of(include: str, rooms: set[str]) -> str | None:
    """The room that an include leads to; None for other libraries' headers."""
    parts = include.split("/")
    if parts[0] == "attnd":
        return "client" if include.endswith(".h") and (len(parts) == 2 or parts[1] == "mocks") else "proto"
    if parts[0] == "client":
        return "attnctl" if parts[1] == "attnctl" else "client"
    path = "/".join(parts[:2]) if parts[0] == "server" else parts[0]
    return path if path in rooms else None


def includes(root: pathlib.Path, path: str, rooms: set[str], pretend: tuple[str, str]) -> dict[str, str]:
    """The rooms that `path` includes, each with a file that does."""
    found = {}
    for folder in folders(path):
        for file in sorted((root / folder).rglob("*")):
            if file.suffix not in (".h", ".cc", ".inc"):
                continue
            name = str(file.relative_to(root))
            more = [pretend[1]] if name == pretend[0] else []
            for include in INCLUDE.findall(file.read_text()) + more:
                other = room_of(include, rooms)
                if other is not None and other != path:
                    found.setdefault(other, name)
    return found


def named(arrows: pathlib.Path) -> dict[str, set[str]]:
    """The rooms that each room's CMake target names."""
    lines = [line.split() for line in arrows.read_text().splitlines() if line]
    path_of = {line[1]: line[0] for line in lines}
    names: dict[str, set[str]] = {}
    for path, _, *targets in lines:
        names.setdefault(path, set()).update(path_of[target] for target in targets if target in path_of)
    return names


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The length of the longest way down from each room. Raises ValueError if there is a circle."""
    heights: dict[str, int] = {}

    def height(room: str, way: tuple[str, ...]) -> int:
        if room in way:
            raise ValueError(f"arrows lead in a circle: {' -> '.join(way[way.index(room):] + (room,))}")
        if room not in heights:
            heights[room] = max((height(other, way + (room,)) + 1 for other in graph[room]), default=0)
        return heights[room]

    for room in graph:
        height(room, ())
    return heights


def picture(graph: dict[str, set[str]], strip: str = "") -> str:
    """A Mermaid flowchart, and the same in words, from the top floor down."""
    heights = floors(graph)

    def label(room: str) -> str:
        return room.removeprefix(strip)

    lines = ["```mermaid", "flowchart TD"]
    for floor in range(max(heights.values()), -1, -1):
        rooms = sorted(room for room in graph if heights[room] == floor)
        lines += [f"  {label(room)}" for room in rooms]
    lines += [f"  {label(room)} --> {label(other)}" for room in sorted(graph) for other in sorted(graph[room])]
    lines += ["```", "", "| floor | room | uses |", "|---|---|---|"]
    for room in sorted(graph, key=lambda room: (-heights[room], room)):
        lines.append(f"| {heights[room]} | {label(room)} | {', '.join(map(label, sorted(graph[room]))) or '–'} |")
    return "\n".join(lines)


def pictures(graph: dict[str, set[str]]) -> dict[str, str]:
    def inside(room: str) -> bool:
        return room.startswith("server/")

    server = {room: {other for other in uses if inside(other)} for room, uses in graph.items() if inside(room)}
    whole: dict[str, set[str]] = {}
    for room, uses in graph.items():
        name = "server" if inside(room) else room
        whole.setdefault(name, set()).update("server" if inside(other) else other for other in uses)
    for name, uses in whole.items():
        uses.discard(name)
    return {"server": picture(server, "server/"), "whole": picture(whole)}


def in_page(page: str, name: str, drawing: str) -> str:
    begin, end = f"<!-- arrows of {name}: tests/checks/arrows.py --write -->\n", f"<!-- end of {name} -->\n"
    if begin not in page or end not in page:
        sys.exit(f"{PAGE} has no place for the picture of {name}: {begin.strip()}")
    return page[: page.index(begin) + len(begin)] + drawing + "\n" + page[page.index(end) :]


def differences(names: dict[str, set[str]], used: dict[str, dict[str, str]]) -> list[str]:
    """Where what the targets name is not what the files include."""
    problems = []
    for room in sorted(names):
        for other in sorted(set(used[room]) - names[room]):
            problems.append(f"{used[room][other]} includes {other}, which the target of {room} does not name")
        for other in sorted(names[room] - set(used[room])):
            problems.append(f"the target of {room} names {other}, of which it includes nothing")
    return problems


def shape_of_server(root: pathlib.Path, graph: dict[str, set[str]]) -> list[str]:
    problems = []
    arrows = sum(other.startswith("server/") for room in graph if room.startswith("server/") for other in graph[room])
    if arrows > SERVER_MOST:
        problems.append(f"server/ has {arrows} arrows; expected at most {SERVER_MOST}")
    flat = [file for file in (root / "server").iterdir() if file.suffix in (".h", ".cc")]
    if len(flat) > FLAT_MOST:
        problems.append(f"server/ has {len(flat)} files in no room; expected at most {FLAT_MOST}")
    return problems


def draw(root: pathlib.Path, graph: dict[str, set[str]], write: bool) -> list[str]:
    page = before = (root / PAGE).read_text()
    for name, drawing in pictures(graph).items():
        page = in_page(page, name, drawing)
    if write:
        (root / PAGE).write_text(page)
    elif page != before:
        return [f"the pictures in {PAGE} are not those of the includes: run tests/checks/arrows.py --write"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser()
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--arrows", type=pathlib.Path, default=root / "build/rooms/arrows.txt")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--pretend", default="=")
    options = parser.parse_args()
    names = named(options.arrows)
    if len(names) < 15:
        sys.exit(f"only {len(names)} rooms: configure with the server, the client and attnctl")
    pretend = tuple(options.pretend.split("=", 1))
    used = {room: includes(root, room, set(names), pretend) for room in names}
    graph = {room: set(others) for room, others in used.items()}
    problems = differences(names, used) + shape_of_server(root, graph)
    try:
        problems += draw(root, graph, options.write)
    except ValueError as circle:
        problems.append(str(circle))
    print("\n".join(problems) or f"{len(names)} rooms: every arrow is named, none leads in a circle")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
