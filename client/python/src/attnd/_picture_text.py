"""Draws a bias window as the same lines of text as attnctl (src/bias/picture_text.cc)."""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple

from attnd._picture_colour import Colour
from attnd._picture_scale import ValueScale, bucket_keys, knows_ranges, offsets_of
from attnd._picture_window import Window

_MASKED = "\u00b7"
_MASKED_IN_WORDS = f"{_MASKED}: masked, the key comes after the query"
_LEGEND_COLUMNS = 100  # of a legend if the terminal's width is not known


class _Look(NamedTuple):
    """How the cells of an offset look, and their greatest width in characters."""

    colour: Callable[[int], Colour]
    label: Callable[[int], str]
    width: int


def bucket_grid_text(window: Window, *, columns: int, colour: bool) -> str:
    """Draws the grid of buckets. The window must have buckets."""
    keys = bucket_keys(window)
    buckets = window.by_offset(window.buckets)
    look = _Look(
        lambda offset: keys[buckets[offset]].colour,
        lambda offset: f"u{buckets[offset]}",
        len(f"u{max(keys, default=0)}"),
    )
    lines = [f"{window.title}: buckets", "", *_grid(window, look, columns, colour), ""]
    known = knows_ranges(window, keys)
    lines.append("offset = query position - key position" + ("" if known else "; of each bucket in this window:"))
    # The lengths count characters without the colours' escape sequences.
    line, room = "", columns or _LEGEND_COLUMNS
    used = 0
    for bucket, key in keys.items():
        name, words = f"u{bucket}", f": {offsets_of(key)}"
        length = len(name) + len(words)
        if used > 0 and used + 3 + length > room:
            lines.append(line)
            line, used = "", 0
        if used > 0:
            line, used = line + "   ", used + 3
        line += (_painted(name, key.colour) if colour else name) + words
        used += length
    if used > 0:
        lines.append(line)
    if window.has_masked:
        lines.append(_MASKED_IN_WORDS)
    return "\n".join(lines) + "\n"


def heat_map_text(window: Window, *, columns: int, colour: bool) -> str:
    """Draws the values of each head of the window, one head after the other."""
    scale = ValueScale(window)
    one = len(window.heads) == 1
    lines = [
        f"{window.title}, head {window.heads[0]}: bias" if one else f"{window.title}, {len(window.heads)} heads: bias"
    ]
    width = max((len(scale.label(values[offset])) for values in scale.values for offset in window.visible()), default=1)
    for head, values in zip(window.heads, scale.values):
        lines += [""] if one else ["", f"head {head}"]
        lines += _grid(window, _value_look(scale, values, width), columns, colour)
    lines += ["", f"values from {scale.label(scale.least)} to {scale.label(scale.greatest)}"]
    if window.has_masked:
        lines.append(_MASKED_IN_WORDS)
    return "\n".join(lines) + "\n"


def _value_look(scale: ValueScale, values: Dict[int, float], width: int) -> _Look:
    return _Look(lambda offset: scale.colour(values[offset]), lambda offset: scale.label(values[offset]), width)


def _digits(first: int, count: int) -> int:
    return max(len(str(first)), len(str(first + count - 1)))


def _painted(text: str, back: Colour) -> str:
    ink = back.ink()
    return f"\x1b[48;2;{back.red};{back.green};{back.blue}m\x1b[38;2;{ink.red};{ink.green};{ink.blue}m{text}\x1b[0m"


def _grid(window: Window, look: _Look, columns: int, colour: bool) -> List[str]:
    """The lines of the grid: every `step`th query and key, with their positions."""
    row_name = _digits(window.query_start, window.queries) + 1
    width = max(look.width, _digits(window.key_start, window.keys) + 1) + 1
    step = 1
    if columns > 0:
        fits = max(1, (columns - row_name - 2) // width)
        step = max(1, -(-window.keys // fits))
    shown = range(0, window.keys, step)
    # A cell's look depends only on its offset.
    cells = {
        offset: _cell(look.label(offset).rjust(width), look.colour(offset) if colour else None)
        for offset in window.visible()
    }
    lines = [" " * (row_name + 1) + "".join(f"k{window.key_start + k}".rjust(width) for k in shown)]
    for q in range(0, window.queries, step):
        row = "".join(cells.get(window.offset(q, k), _MASKED.rjust(width)) for k in shown)
        lines.append(f"q{window.query_start + q}".rjust(row_name) + " " + row)
    if step > 1:
        lines += ["", f"(one in {step} queries and keys, to fit the terminal)"]
    return lines


def _cell(text: str, colour: Colour | None) -> str:
    return text if colour is None else _painted(text, colour)
