#!/usr/bin/env python3
"""Fails on a link or a path in a Markdown file of the source tree that leads nowhere.

  links.py ROOT

A link is checked if it is relative: its file exists inside ROOT, and its #anchor is a heading of that file, spelled as
GitHub spells it. Links to other places (https:, mailto:) are not followed.

A word in `code` or in a code block is a path in two cases; wildcards and {h,cc} stand for what they match:
  - its first part is a file or folder at the top of ROOT (src/..., scripts/..., .ci/run): it exists there;
  - it ends like a source file (.sh, .py, .cc, .h, .md, .cmake, .proto): it exists beside the document, in ROOT, or in one
    of the folders that sources are included from. If none of these has even its first part, it is somebody else's.
"""

import itertools
import pathlib
import re
import sys

SOURCE_ENDINGS = (".sh", ".py", ".cc", ".h", ".md", ".cmake", ".proto")
INCLUDE_FOLDERS = ("src", "client/include", "proto")

FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
CODE = re.compile(r"(`+)(.+?)\1")
INLINE_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)")
HTML_LINK = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"")
HTML_ANCHOR = re.compile(r"<[a-z]+\b[^>]*?\b(?:id|name)=\"([^\"]+)\"")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
ELSEWHERE = re.compile(r"^([a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
PATH = re.compile(r"^[A-Za-z0-9_.*{},+-]+(/[A-Za-z0-9_.*{},+-]+)*/?$")
BRACES = re.compile(r"\{([^{}]*)\}")


def is_source(top: str) -> bool:
    """Whether a name at the top of the tree is part of it, not Git's or a build's."""
    return top not in ("", ".", "..", ".git", "build") and not top.startswith("build-")


def documents(root: pathlib.Path) -> list[pathlib.Path]:
    found = list(root.glob("*.md"))
    for folder in root.iterdir():
        if folder.is_dir() and is_source(folder.name):
            found += folder.rglob("*.md")
    return sorted(found)


def split(text: str) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """The numbered lines of prose, without their code, and the numbered pieces of code."""
    prose, code, fence, previous = [], [], "", ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence = ""
            else:
                code.append((number, line))
        elif mark:
            fence = mark[1]
        elif line.startswith("    ") and (not previous.strip() or previous.startswith("    ")):
            code.append((number, line))
        else:
            code += [(number, match[2]) for match in CODE.finditer(line)]
            prose.append((number, line))
        previous = line
    return prose, code


def anchor(heading: str) -> str:
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"[^\w\- ]", "", text.lower())
    return text.replace(" ", "-")


def anchors(path: pathlib.Path) -> set[str]:
    found: set[str] = set()
    for _, line in split(path.read_text())[0]:
        found.update(HTML_ANCHOR.findall(line))
        if heading := HEADING.match(line):
            name = anchor(heading[1])
            found.add(next(c for c in itertools.chain([name], (f"{name}-{n}" for n in itertools.count(1))) if c not in found))
    return found


def links(line: str) -> list[str]:
    line = CODE.sub("", line)
    return INLINE_LINK.findall(line) + REFERENCE.findall(line) + HTML_LINK.findall(line)


def broken_link(root: pathlib.Path, document: pathlib.Path, target: str) -> str | None:
    if ELSEWHERE.match(target):
        return None
    name, _, fragment = target.partition("#")
    path = (document.parent / name).resolve() if name else document
    if not path.is_relative_to(root):
        return f"{target} leads out of the repository"
    if not path.exists():
        return f"no file {target}"
    if fragment and (path.suffix != ".md" or fragment not in anchors(path)):
        return f"no heading {target}"
    return None


def expand(path: str) -> list[str]:
    match = BRACES.search(path)
    if not match:
        return [path]
    return [p for choice in match[1].split(",") for p in expand(path[: match.start()] + choice + path[match.end() :])]


def paths(root: pathlib.Path, code: str) -> list[tuple[str, bool]]:
    """The paths in a piece of code, each with whether it begins at the top of the tree."""
    found = []
    for word in code.split():
        word = re.sub(r":\d+$", "", word.strip("\"'()[];,:")).removesuffix(".")
        for path in expand(word) if PATH.match(word) else []:
            top = path.partition("/")[0]
            in_tree = "/" in path and is_source(top) and (root / top).exists()
            if in_tree or (path.endswith(SOURCE_ENDINGS) and not path.startswith(("-", "*."))):
                found.append((path, in_tree))
    return found


def missing_path(root: pathlib.Path, document: pathlib.Path, path: str, in_tree: bool) -> str | None:
    folders = [root] if in_tree else [document.parent, root, *(root / folder for folder in INCLUDE_FOLDERS)]
    if "/" in path and not any((folder / path.partition("/")[0]).exists() for folder in folders):
        return None
    return None if any(exists(folder, path) for folder in folders) else f"no file {path}"


def exists(folder: pathlib.Path, path: str) -> bool:
    return any(folder.glob(path)) if "*" in path else (folder / path).exists()


def findings(root: pathlib.Path, document: pathlib.Path) -> tuple[int, list[str]]:
    """How many links and paths the document has, and what is wrong with them."""
    prose, code = split(document.read_text())
    found = [(number, broken_link(root, document, link)) for number, line in prose for link in links(line)]
    found += [(number, missing_path(root, document, *path)) for number, piece in code for path in paths(root, piece)]
    bad = sorted({(number, what) for number, what in found if what})
    return len(found), [f"{document.relative_to(root)}:{number}: {what}" for number, what in bad]


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[1]).resolve()
    all_documents = documents(root)
    if not all_documents:
        sys.exit(f"no document under {root}")
    checked, bad = 0, []
    for document in all_documents:
        count, lines = findings(root, document)
        checked += count
        bad += lines
    print(*bad, f"{checked} links and paths in {len(all_documents)} documents, {len(bad)} broken", sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
