"""Reads the lists of faults in this folder, and plants them into sources: each beside the right code, behind a switch
that the environment sets when the program runs (planted.h, attnd_planted.py)."""

import ast
import pathlib
import re
import textwrap
import tomllib
import zlib
from dataclasses import dataclass

KINDS = ("given-back", "together", "promise", "race", "limit", "shared-memory", "value", "error", "lifetime")


class FaultError(Exception):
    """A fault of a list that cannot be planted; the message names the list and the fault."""


@dataclass(frozen=True)
class Fault:
    number: int  # what ATTND_PLANTED_FAULT names; made from the name, so that it stays when a list changes
    room: str  # the list's name
    name: str
    kind: str
    file: str  # from the root of the sources
    old: str
    new: str
    within: str  # text that holds `old` once and that the file holds once; `old` itself if the list names none
    why: str
    needs: str  # a CPU feature as /proc/cpuinfo names it, or empty

    def __str__(self) -> str:
        return f"{self.room}.toml: {self.name}"


def read_lists(folder: pathlib.Path) -> list[Fault]:
    """All faults of all lists, in the order of the lists' names. Raises FaultError."""
    faults: list[Fault] = []
    names: dict[int, str] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            entries = tomllib.loads(path.read_text(encoding="utf-8")).get("fault", [])
        except tomllib.TOMLDecodeError as error:
            raise FaultError(f"{path.name}: {error}") from error
        for entry in entries:
            name = entry.get("name", "(no name)")
            missing = {"name", "kind", "file", "old", "new", "why"} - entry.keys()
            unknown = entry.keys() - {"name", "kind", "file", "old", "new", "why", "within", "needs"}
            if missing or unknown:
                raise FaultError(f"{path.name}: {name}: missing {sorted(missing)}, unknown {sorted(unknown)}")
            if entry["kind"] not in KINDS:
                raise FaultError(f"{path.name}: {name}: kind is {entry['kind']}, expected one of {', '.join(KINDS)}")
            number = zlib.crc32(name.encode()) or 1
            if number in names:
                raise FaultError(f"{path.name}: {name}: the name, or its checksum, is that of {names[number]}")
            if entry["old"] == entry["new"] or not entry["old"].strip():
                raise FaultError(f"{path.name}: {name}: new is old, or old is empty")
            names[number] = name
            old = entry["old"]
            faults.append(
                Fault(
                    number=number,
                    room=path.stem,
                    name=name,
                    kind=entry["kind"],
                    file=entry["file"],
                    old=old,
                    new=entry["new"],
                    within=entry.get("within", old),
                    why=entry["why"],
                    needs=entry.get("needs", ""),
                )
            )
    return faults


def span(fault: Fault, text: str) -> tuple[int, int]:
    """Where the fault's old code stands in the file's text. Raises FaultError if it is gone or not alone."""
    outer = text.count(fault.within)
    inner = fault.within.count(fault.old)
    if outer != 1 or inner != 1:
        if outer == 1:
            raise FaultError(f"{fault}: `within` holds `old` {inner} times, expected once")
        field = "old" if fault.within == fault.old else "within"
        raise FaultError(f"{fault}: {fault.file} holds `{field}` {outer} times, expected once")
    start = text.index(fault.within) + fault.within.index(fault.old)
    return start, start + len(fault.old)


def plant(faults: list[Fault], text: str, header: str) -> str:
    """The text of one file with all of its faults in it; `header` is the path of planted.h. Raises FaultError."""
    places: dict[tuple[int, int], list[Fault]] = {}
    for fault in faults:
        places.setdefault(span(fault, text), []).append(fault)
    python = faults[0].file.endswith(".py")
    replace = _in_python if python else _in_cpp
    left = [(start, end, here) for (start, end), here in places.items()]
    while left:
        # The shortest first: a fault may stand in the code that another one replaces.
        start, end, here = left.pop(left.index(min(left, key=lambda place: place[1] - place[0])))
        longer = len(text)
        text = replace(here, text, start, end)
        longer = len(text) - longer
        for index, (first, last, others) in enumerate(left):
            if first < end and start < last and not (first <= start and end <= last):
                raise FaultError(f"{here[0]}: overlaps {others[0].name}")
            left[index] = (first + longer * (first >= end), last + longer * (last >= end), others)
    if python:
        return text
    return f'#include "{header}"\n#line 1 "{faults[0].file}"\n{text}'


def _in_cpp(faults: list[Fault], text: str, start: int, end: int) -> str:
    code = text[start:end]
    bare = re.sub(r"\s*//.*", "", code).rstrip()
    block = re.match(r"\s*(if|for|while|do|switch|try|\{)", bare) is not None
    if bare.endswith(";") or (bare.endswith("}") and (block or ";" in bare)):  # Type{value} is an expression
        for fault in faults:
            code = f"{{ if (ATTND_IS_PLANTED({fault.number})) {{ {fault.new}\n}} else {{ {code}\n}} }}"
    else:
        for fault in faults:
            code = f"(ATTND_IS_PLANTED({fault.number}) ? ({fault.new}) : ({code}))"
    return text[:start] + code + text[end:]


def _in_python(faults: list[Fault], text: str, start: int, end: int) -> str:
    switch = '__import__("attnd_planted").is_planted({})'
    line = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end - 1)
    indent = re.match(r"\s*", text[line:]).group()  # type: ignore[union-attr]
    if text[line:start].strip() == "" and text[end:stop].strip() == "":
        code = textwrap.dedent(text[line:end])
        for fault in faults:
            new = textwrap.dedent(indent + fault.new.lstrip(" ")) if fault.new.strip() else "pass"
            code = f"if {switch.format(fault.number)}:\n{textwrap.indent(new, '    ')}\nelse:\n{textwrap.indent(code, '    ')}"
        statements = text[:line] + textwrap.indent(code, indent).rstrip() + "\n" + text[end:].removeprefix("\n")
        if _parses(statements):
            return statements
    code = text[start:end]
    for fault in faults:
        code = f"(({fault.new}) if {switch.format(fault.number)} else ({code}))"
    expression = text[:start] + code + text[end:]
    if not _parses(expression):
        raise FaultError(f"{faults[0]}: neither whole statements nor an expression")
    return expression


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
