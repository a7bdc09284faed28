"""Draws the legend or colour bar of a picture, as src/bias/picture_legend.cc does."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional

from attnd._drawing import minus, round_step
from attnd._picture_canvas import GREY, HATCHING, INK, LINE, Canvas, Label, indexed, n, plain
from attnd._picture_panel import Panel
from attnd._picture_scale import SHADES, BucketKey, ValueScale, colour_of_shade, knows_ranges, offsets_of
from attnd._picture_window import Window

_GAP = 40.0  # between the grid and its legend
_ROW = 24.0
_MOST_BUCKETS = 96  # with more, only every n-th is listed


class _Entry(NamedTuple):
    fill: str  # of its colour patch; empty: no patch
    name: Optional[Label]
    words: Label
    heading: bool = False

    @property
    def indent(self) -> float:
        return 66.0 if self.name is not None else 27.0 if self.fill else 0.0


def bucket_legend(canvas: Canvas, window: Window, keys: Dict[int, BucketKey], panel: Panel) -> None:
    """Draws the buckets' offsets, in columns as tall as the grid; below the grid, if that is a wide strip."""
    entries = _entries(window, keys)
    width = max(entry.indent + 13 * entry.words.ems for entry in entries) + 16
    below = panel.width > 3 * panel.height and panel.width > 2 * width
    if below:
        columns = int(panel.width // width)
        rows = -(-len(entries) // columns)
    else:
        rows = max(8, int(panel.height // _ROW))
    left = panel.left if below else panel.left + panel.width + _GAP
    top = max(panel.top + panel.height + 24, canvas.bottom + 12) if below else panel.top
    # A heading begins a new column, unless all entries fit into one.
    fitting = len(entries) <= rows
    i = -1
    for entry in entries:
        i += 1
        if entry.heading and not fitting:
            i = -(-i // rows) * rows
        x, y = left + width * (i // rows), top + _ROW * (i % rows)
        if entry.fill:
            canvas.rect(x, y, 18, 18, f'fill="{entry.fill}" stroke="{LINE}"')
        if entry.name is not None:
            canvas.text(x + 27, y + 14, 16, entry.name)
        more = ' class="s" font-weight="600"' if entry.heading else ' class="s"'
        canvas.text(x + entry.indent, y + 14, 13, entry.words, GREY, more=more)


def _entries(window: Window, keys: Dict[int, BucketKey]) -> List[_Entry]:
    entries: List[_Entry] = []
    sides = [[bucket for bucket, key in keys.items() if key.after == after] for after in (False, True)]
    known = knows_ranges(window, keys)
    step = -(-len(keys) // _MOST_BUCKETS)
    for after, side in enumerate(sides):
        if not side:
            continue
        if after and sides[0]:
            entries.append(_Entry("", None, plain("keys after the query"), True))
        else:
            entries.append(_Entry("", None, plain("offsets" if known else "offsets in this window"), True))
        for bucket in side[::step]:
            words = plain(minus(offsets_of(keys[bucket])))
            entries.append(_Entry(keys[bucket].colour.hex(), indexed("u", bucket), words))
    if step > 1:
        entries.append(_Entry("", None, plain(f"one in {step} buckets is shown")))
    if window.has_masked:
        entries.append(_Entry(HATCHING, None, plain("masked: later key")))
    return entries


def colour_bar(canvas: Canvas, window: Window, scale: ValueScale, panel: Panel) -> None:
    """Draws the colour scale right of `panel`, with zero in the middle."""
    x, top = panel.left + panel.width + _GAP, panel.top
    height = min(max(panel.height, 160.0), 400.0)
    count = 2 * SHADES + 1
    for i in range(count):
        colour = colour_of_shade(SHADES - i).hex()
        canvas.rect(x, top + height * i / count, 18, height / count, f'fill="{colour}" shape-rendering="crispEdges"')
    canvas.rect(x, top, 18, height, f'fill="none" stroke="{LINE}"')
    marks = [scale.largest, 0.0, -scale.largest]
    step = round_step(scale.largest, 4)
    for i in range(1, int(scale.largest / step) + 1):
        if height / 2 * (1 - i * step / scale.largest) > 16:
            marks += [i * step, -i * step]
    for value in marks:
        y = top + height * (1 - (value / scale.largest * SHADES / (SHADES + 0.5) + 1) / 2)
        canvas.add(f'<path stroke="{LINE}" d="M{n(x + 18)} {n(y)}h5"/>')
        canvas.text(x + 28, y + 4.5, 13, plain(minus(f"{value:.3g}")), INK, more=' class="s"')
    y = top + height + 24
    said = f"{scale.label(scale.least)} to {scale.label(scale.greatest)}"
    canvas.text(x, y, 13, plain("in this window"), GREY, more=' class="s" font-weight="600"')
    canvas.text(x, y + 19, 13, plain(minus(said)), GREY, more=' class="s"')
    if window.has_masked:
        canvas.rect(x, y + 34, 18, 18, f'fill="{HATCHING}" stroke="{LINE}"')
        canvas.text(x + 27, y + 48, 13, plain("masked"), GREY, more=' class="s"')
