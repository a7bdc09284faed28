"""Draws a bias window as the same SVG documents as attnctl (src/bias/picture_svg.cc)."""

from __future__ import annotations

import math
from typing import Dict, List, Tuple

from attnd._drawing import minus
from attnd._picture_axes import Size, column_axis, room_for_rows
from attnd._picture_canvas import GREY, MARGIN, Canvas, indexed, plain
from attnd._picture_legend import bucket_legend, colour_bar
from attnd._picture_panel import Form, Look, Panel, fitted
from attnd._picture_scale import ValueScale, bucket_keys, offsets_of
from attnd._picture_window import Window

_PLOT, _GROWN_PLOT = 640.0, 1024.0  # pixels a side; the latter if labels need it
_TOP = 124.0


def bucket_grid_svg(window: Window) -> str:
    """Draws the grid of buckets. The window must have buckets."""
    keys = bucket_keys(window)
    buckets = window.by_offset(window.buckets)
    forms = [
        Form(lambda offset: indexed("u", buckets[offset]), 10.5, 26.0, ""),
        Form(lambda offset: plain(f"u{buckets[offset]}"), 7.0, 10.5, ' class="s"'),
    ]
    look = Look(lambda offset: keys[buckets[offset]].colour, forms)
    canvas = Canvas()
    bucket_legend(canvas, window, keys, _one_panel(canvas, window, look))
    said = "; ".join(f"u{bucket}: {offsets_of(key)}" for bucket, key in keys.items())
    return canvas.finish(
        f"{window.title}: buckets",
        minus("u: bucket of the offset, query position - key position"),
        f"{_window_in_words(window)} Offsets of each bucket: {said or 'none is visible'}.",
    )


def heat_map_svg(window: Window) -> str:
    """Draws the values of each head of the window, on one diverging scale."""
    scale = ValueScale(window)
    looks = [_look(scale, values) for values in scale.values]
    canvas = Canvas()
    last = _one_panel(canvas, window, looks[0]) if len(looks) == 1 else _all_panels(canvas, window, looks)
    colour_bar(canvas, window, scale, last)
    of_heads = f"head {window.heads[0]}" if len(looks) == 1 else f"{len(looks)} heads"
    return canvas.finish(
        f"{window.title}, {of_heads}: bias",
        minus("added to each q\u00b7k at offset query position - key position"),
        f"{_window_in_words(window)} Values from {scale.label(scale.least)} to {scale.label(scale.greatest)}.",
    )


def _look(scale: ValueScale, values: Dict[int, float]) -> Look:
    form = Form(lambda offset: plain(minus(scale.label(values[offset]))), 7.0, 18.0, ' class="s"')
    return Look(lambda offset: scale.colour(values[offset]), [form])


def _one_panel(canvas: Canvas, window: Window, look: Look) -> Panel:
    size = fitted(window, look, _PLOT, _GROWN_PLOT)
    panel = Panel(canvas, window, size, _left(window, size), _TOP)
    panel.draw(look)
    panel.row_names()
    panel.column_names()
    _axis_names(canvas, panel, panel)
    return panel


def _all_panels(canvas: Canvas, window: Window, looks: List[Look]) -> Panel:
    """Draws a panel for each head (small multiples), with axes at the outer ones. Returns the panel at the upper
    right."""
    columns, side = _arrangement(window, len(looks))
    size = min((fitted(window, look, side, side) for look in looks), key=lambda size: size.label)
    left, top = _left(window, size), _TOP + 24
    across, down = size.width * window.keys + 24, size.height * window.queries + 34
    names = column_axis(window, size).size
    panels = []
    for i, look in enumerate(looks):
        row, column = divmod(i, columns)
        panel = Panel(canvas, window, size, left + across * column, top + down * row)
        panel.draw(look)
        if column == 0:
            panel.row_names()
        if row == 0:
            panel.column_names()
        head = plain(f"head {window.heads[i]}")
        canvas.text(
            panel.left, panel.top - (17 + names if row == 0 else 8), 13, head, more=' class="s" font-weight="600"'
        )
        panels.append(panel)
    last_row = panels[len(panels) - 1]
    _axis_names(canvas, panels[0], Panel(canvas, window, size, panels[columns - 1].left, last_row.top))
    return panels[columns - 1]


def _axis_names(canvas: Canvas, first: Panel, last: Panel) -> None:
    """Draws the axis names next to all panels: `first` is the upper left one, `last` the lower right one."""
    x = (first.left + last.left + last.width) / 2
    canvas.text(x, _TOP - 32, 13, plain("key position"), GREY, "middle", ' class="s"')
    y = (first.top + last.top + last.height) / 2
    canvas.turned_text(MARGIN + 10, y, 13, plain("query position"), GREY)


def _arrangement(window: Window, count: int) -> Tuple[int, float]:
    """The number of columns of panels, and the most pixels of a panel's side."""
    if window.keys >= 4 * window.queries:
        return 1, _PLOT
    root = math.sqrt(count)
    columns = math.ceil(root)
    if window.queries >= 4 * window.keys:
        columns = min(count, 8)
    else:
        columns = next((c for c in range(columns, int(1.6 * root) + 1) if count % c == 0), columns)
    return columns, 220.0 if columns <= 4 else 150.0 if columns <= 8 else 100.0


def _left(window: Window, size: Size) -> float:
    return MARGIN + 16 + 12 + room_for_rows(window, size) + 9


def _window_in_words(window: Window) -> str:
    queries, keys = window.query_start + window.queries - 1, window.key_start + window.keys - 1
    words = f"Rows are queries {window.query_start} to {queries}, columns are keys {window.key_start} to {keys}."
    if window.has_masked:
        words += " Cells whose key comes after the query are masked, and hatched."
    return words
