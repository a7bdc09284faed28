#!/usr/bin/env python3
"""Runs the commands that a page shows, and compares what they print with what the page says they print.

usage: page_commands.py [--commands] PAGE ROOT ATTND ATTNCTL PYTHON

A block that begins with ```console has commands after "$ ", each with the output that follows it. A command goes on after a
line that ends in a backslash, and up to the end of a here-document. In the output a line "..." stands for any lines. After
```console varies the output may differ in its numbers: a measurement. Commands run one after another in one folder, with
the binaries in PATH, a server behind ATTND_SERVER, and the Python package. Pictures that they write to docs/images must be
those of the tree. Each number in the page's text, years and code apart, must stand in one of these blocks; with --commands
the text is not looked at.
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?![\w])")
YEAR = re.compile(r"(?:19|20)\d\d")


def blocks(text):
    """(whether it varies, its lines) of each block with commands."""
    for match in re.finditer(r"^( *)```console( varies)?\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        yield bool(match[2]), [line.removeprefix(match[1]) for line in match[3].splitlines()]


def steps(lines):
    """(command, lines of its output) of a block."""
    at = 0
    while at < len(lines):
        assert lines[at].startswith("$ "), f"expected a command, got {lines[at]}"
        command = [lines[at][2:]]
        end = re.search(r"<<'?(\w+)'?", command[0])
        while (end and command[-1] != end[1]) or (not end and command[-1].endswith("\\")):
            at += 1
            command.append(lines[at])
        at += 1
        output = []
        while at < len(lines) and not lines[at].startswith("$ "):
            output.append(lines[at])
            at += 1
        yield "\n".join(command), output


def matches(expected, got):
    """Whether lines are as expected, where "..." stands for any lines."""
    if not expected:
        return not got
    if expected[0] == "...":
        return any(matches(expected[1:], got[skip:]) for skip in range(len(got) + 1))
    return bool(got) and expected[0] == got[0] and matches(expected[1:], got[1:])


def without_numbers(lines):
    return [re.sub(r"[\d.]+", "N", line) for line in lines]


def unfounded(text):
    """Numbers of the page's text that no block with commands has."""
    shown = set(NUMBER.findall("\n".join(line for _, lines in blocks(text) for line in lines)))
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|decision \d+|^ *\d+\. ", "", prose, flags=re.MULTILINE)
    return [n for n in NUMBER.findall(prose) if n not in shown and not YEAR.fullmatch(n)]


def run(page, environment, folder):
    failures = 0
    for varies, lines in blocks(page):
        for command, expected in steps(lines):
            done = subprocess.run(["bash", "-c", command], env=environment, cwd=folder, text=True, check=False,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            got = done.stdout.splitlines()
            if varies:
                expected, got = without_numbers(expected), without_numbers(got)
            if not matches(expected, got):
                failures += 1
                print(f"$ {command}\nexpected:\n" + "\n".join(expected) + "\ngot:\n" + "\n".join(got) + "\n")
    return failures


def main():
    arguments = sys.argv[1:]
    commands_alone = arguments[0] == "--commands"
    page, root, attnd, attnctl, python = map(pathlib.Path, arguments[1:] if commands_alone else arguments)
    text = page.read_text(encoding="utf-8")
    failures = 0
    if not any(blocks(text)):
        failures += 1
        print(f"{page.name}: no block with commands")
    for number in [] if commands_alone else unfounded(text):
        failures += 1
        print(f"{page.name}: {number} stands in none of its commands")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "docs" / "images").mkdir(parents=True)
        (folder / "examples").symlink_to(root / "examples")
        (folder / "bin").mkdir()
        for tool, path in (("attnd", attnd), ("attnctl", attnctl), ("python3", python)):
            (folder / "bin" / tool).write_text(f'#!/bin/sh\nexec "{path}" "$@"\n')
            (folder / "bin" / tool).chmod(0o755)
        address = f"unix:{folder}/s"
        environment = {**os.environ, "ATTND_SERVER": address, "PATH": f"{folder}/bin:{os.environ['PATH']}",
                       "PYTHONPATH": str(root / "client" / "python" / "src"), "PYTHONDONTWRITEBYTECODE": "1",
                       "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([attnd, f"--listen={address}"], stdout=log, stderr=log)
        try:
            while subprocess.run([attnctl, "info"], env=environment, capture_output=True, check=False).returncode:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            failures += run(text, environment, folder)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
        for picture in sorted((folder / "docs" / "images").iterdir()):
            if picture.read_bytes() != (root / "docs" / "images" / picture.name).read_bytes():
                failures += 1
                print(f"docs/images/{picture.name} is not what the page's command draws")
    print(f"{page.name}: {failures or 'no'} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
