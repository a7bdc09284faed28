"""Pictures of a bias window as lines of text, the same as attnctl's (src/bias/picture_text.cc)."""

from __future__ import annotations

from typing import Callable, List, Tuple

from attnd._picture_colour import Colour, bucket_keys, diverging, largest_value
from attnd._picture_window import Window

Cell = Tuple[int, int]


def bucket_grid_text(window: Window, *, columns: int, colour: bool) -> str:
    """The grid of buckets. The window has buckets."""
    assert window.buckets is not None
    keys = bucket_keys(window)
    buckets = window.buckets.tolist()
    width = len(f"u{max(keys, default=0)}")
    return _draw(
        window,
        columns,
        width,
        lambda cell: f"u{buckets[cell[0]][cell[1]]}",
        (lambda cell: keys[buckets[cell[0]][cell[1]]].colour) if colour else None,
    )


def heat_map_text(window: Window, *, columns: int, colour: bool) -> str:
    """The values of one head. The window has values."""
    assert window.values is not None
    largest = largest_value(window)
    values = window.values.astype(float).tolist()
    width = max(len(f"{value:.2f}") for row in values for value in row)
    return _draw(
        window,
        columns,
        width,
        lambda cell: f"{values[cell[0]][cell[1]]:.2f}",
        (lambda cell: diverging(values[cell[0]][cell[1]] / largest)) if colour else None,
    )


def _digits(first: int, count: int) -> int:
    return max(len(str(first)), len(str(first + count - 1)))


def _painted(text: str, back: Colour) -> str:
    ink = back.ink()
    return f"\x1b[48;2;{back.red};{back.green};{back.blue}m\x1b[38;2;{ink.red};{ink.green};{ink.blue}m{text}\x1b[0m"


def _draw(
    window: Window,
    columns: int,
    label_width: int,
    label: Callable[[Cell], str],
    colour: Callable[[Cell], Colour] | None,
) -> str:
    """Rows of cells, every `step`th query and key, with their positions beside them."""
    row_name = _digits(window.query_start, window.queries) + 1
    width = max(label_width, _digits(window.key_start, window.keys) + 1) + 1
    step = 1
    if columns > 0:
        fits = max(1, (columns - row_name - 2) // width)
        step = max(1, -(-window.keys // fits))
    masked = window.masked.tolist()
    shown = range(0, window.keys, step)
    lines: List[str] = [window.title, ""]
    lines.append(" " * (row_name + 1) + "".join(f"k{window.key_start + k}".rjust(width) for k in shown))
    for q in range(0, window.queries, step):
        row = blank = ""  # blanks only before another cell, so that no line ends in them
        for k in shown:
            if masked[q][k]:
                blank += " " * width
                continue
            text = label((q, k)).rjust(width)
            row += blank + (text if colour is None else _painted(text, colour((q, k))))
            blank = ""
        lines.append(f"q{window.query_start + q}".rjust(row_name) + " " + row)
    if step > 1:
        lines += ["", f"(every {step}th query and key, to fit the terminal)"]
    return "\n".join(lines) + "\n"
