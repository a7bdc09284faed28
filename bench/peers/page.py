"""Writes a generated section into a Markdown page."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterable


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def replace_section(page: pathlib.Path, name: str, body: str) -> None:
    """Puts `body` between the page's `<!-- NAME: begin -->` and `<!-- NAME: end -->`; raises ValueError without them."""
    text = page.read_text()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{page}: expected one '{begin}' before one '{end}'")
    head = text[: text.index(begin) + len(begin)]
    tail = text[text.index(end) :]
    page.write_text(f"{head}\n\n{body.strip()}\n\n{tail}")


def show(options: argparse.Namespace, name: str, body: str) -> None:
    """Prints the section with `options.print`; otherwise puts it into `options.page`."""
    if options.print:
        print(body)
    else:
        replace_section(options.page, name, body)
