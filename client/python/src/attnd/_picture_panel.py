"""Draws one grid of cells with its axes, as src/bias/picture_panel.cc does."""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Optional

from attnd._picture_axes import Size, column_axis, row_axis
from attnd._picture_canvas import HATCHING, INK, LINE, Canvas, Label, n, product
from attnd._picture_colour import Colour
from attnd._picture_window import Window

_LARGEST_CELL = 72.0
_ROOMY_CELL = 24.0  # cells are square up to this side; beyond it they may be longer along a short axis
_GROWTH = 64.0  # how much the grid grows at a time until labels fit
_MOST_SEPARATE = 40  # up to this many rows and columns, lines separate the cells even without labels
_SMOOTH_CELL = 4.0  # below this side the edge between two colours is a straight line instead of a staircase
_SMALLEST_INDEXED = 10.5  # below this size a subscript is not legible


class Form(NamedTuple):
    """One way to write the labels of cells: the label of an offset, and the range of text sizes."""

    label: Callable[[int], Label]
    smallest: float
    largest: float
    more: str  # attributes of the text


class Look(NamedTuple):
    """How the cells of an offset look: their colour, and the forms of their label; the first form that fits is used."""

    colour: Callable[[int], Colour]
    forms: List[Form]


def fitted(window: Window, look: Look, plot: float, grown: float) -> Size:
    """The cell size of a grid of at most `plot` pixels a side, or up to `grown` if that makes its labels legible."""
    ems = [max((form.label(offset).ems for offset in window.visible()), default=1.0) for form in look.forms]

    def within(side: float) -> Size:
        width, height = min(_LARGEST_CELL, side / window.keys), min(_LARGEST_CELL, side / window.queries)
        square = max(min(width, height), _ROOMY_CELL)
        width, height = min(width, square), min(height, square)
        for i, form in enumerate(look.forms):
            label = min(form.largest, 0.86 * width / ems[i], 0.5 * height)
            if label >= form.smallest:
                return Size(width, height, label, i)
        return Size(width, height, 0.0, 0)

    side = plot
    while side <= grown:
        size = within(side)
        if size.label > 0:
            return size
        side += _GROWTH
    return within(plot)


class Panel:
    """A window's grid on a canvas, its upper left corner at (left, top)."""

    def __init__(self, canvas: Canvas, window: Window, size: Size, left: float, top: float) -> None:
        self._canvas, self._window, self._size = canvas, window, size
        self.left, self.top = left, top
        self.width, self.height = size.width * window.keys, size.height * window.queries

    def draw(self, look: Look) -> None:
        window, place = self._window, (self.left, self.top, self.width, self.height)
        if window.has_masked:
            self._canvas.rect(*place, f'fill="{HATCHING}"')
        if self._size.label > 0 or max(window.queries, window.keys) <= _MOST_SEPARATE:
            self._cells(look)
            self._lines()
        else:
            self._bands(look)
        self._canvas.rect(*place, f'fill="none" stroke="{LINE}"')
        if self._size.label > 0:
            self._labels(look)

    def _scaled(self) -> str:
        """A group in which a cell is 1 by 1."""
        size = self._size
        scale = f"translate({n(self.left)} {n(self.top)}) scale({n(size.width)} {n(size.height)})"
        return f'<g transform="{scale}" shape-rendering="crispEdges">'

    def _cells(self, look: Look) -> None:
        """Draws the cells: runs of one colour along rows, in one path for each colour."""
        window = self._window
        paths: Dict[str, List[str]] = {}
        for q in range(window.queries):
            k = 0
            while k < window.keys:
                start, offset = k, window.offset(q, k)
                k += 1
                if window.masked(offset):
                    continue
                colour = look.colour(offset)
                while k < window.keys and not window.masked(window.offset(q, k)):
                    if look.colour(window.offset(q, k)) != colour:
                        break
                    k += 1
                paths.setdefault(colour.hex(), []).append(f"M{start} {q}h{k - start}v1h{start - k}z")
        self._canvas.add(self._scaled())
        for name in sorted(paths):
            self._canvas.add(f'<path fill="{name}" d="{"".join(paths[name])}"/>')
        self._canvas.add("</g>")

    def _lines(self) -> None:
        """Draws lines between the cells."""
        window, size, left, top = self._window, self._size, n(self.left), n(self.top)
        lines = [f"M{left} {n(self.top + q * size.height)}h{n(self.width)}" for q in range(1, window.queries)]
        lines += [f"M{n(self.left + k * size.width)} {top}v{n(self.height)}" for k in range(1, window.keys)]
        if lines:
            width = n(min(2.5, 0.05 * min(size.width, size.height)))
            self._canvas.add(f'<path stroke="#ffffff" stroke-width="{width}" d="{"".join(lines)}"/>')

    def _bands(self, look: Look) -> None:
        """Draws diagonal bands: each colour covers all cells from an offset on, and the next colour is painted over it.
        This leaves no seams, however thin the bands are."""
        window = self._window
        last: Optional[Colour] = None
        self._canvas.add(self._scaled())
        for offset in window.visible():
            colour = look.colour(offset)
            if colour != last:
                self._canvas.add(f'<path fill="{colour.hex()}" d="{self._from(offset)}"/>')
            last = colour
        self._canvas.add("</g>")

    def _from(self, offset: int) -> str:
        """The path around the cells with this offset or a greater one, which are left of a descending edge."""
        window = self._window
        # In row q the edge is at key q + first, clamped to the grid.
        first = window.offset(0, 0) - offset + 1
        edge = [min(max(q + first, 0), window.keys) for q in range(window.queries)]
        if min(self._size.width, self._size.height) >= _SMOOTH_CELL:
            path, down = f"M0 0H{edge[0]}", 1
            for before, after in zip(edge, edge[1:]):
                if after != before:
                    path += f"v{down}h{after - before}"
                    down = 0
                down += 1
            return f"{path}v{down}H0z"
        # A straight line through the middles of the stairs.
        x = first - 0.5
        path = f"M0 {n(max(-x, 0.0))}" if x < 0 else f"M0 0H{n(min(x, float(window.keys)))}"
        if x < window.keys:
            reach = min(window.queries, window.keys - x)
            path += f"L{n(reach + x)} {n(reach)}"
        return f"{path}V{window.queries}H0z"

    def _labels(self, look: Look) -> None:
        window, size = self._window, self._size
        form = look.forms[size.form]
        name = product(window.query_start + window.queries - 1, window.key_start + window.keys - 1)
        small = min(0.2 * size.height, 0.9 * size.width / name.ems)
        products = small >= _SMALLEST_INDEXED
        text = min(size.label, 0.36 * size.height) if products else size.label
        for ink in ("#000000", "#ffffff"):
            lines: List[str] = []
            for q in range(window.queries):
                for k in range(window.keys):
                    offset = window.offset(q, k)
                    if window.masked(offset) or look.colour(offset).ink().hex() != ink:
                        continue
                    x, y = self.left + size.width * (k + 0.5), self.top + size.height * (q + 0.5)
                    down = 0.75 if products else 0.34
                    lines.append(f'<text x="{n(x)}" y="{n(y + down * text)}">{form.label(offset).markup}</text>\n')
                    if products:
                        name = product(window.query_start + q, window.key_start + k)
                        above = f'x="{n(x)}" y="{n(y - 0.17 * size.height)}" font-size="{n(small)}" class="m"'
                        lines.append(f"<text {above}>{name.markup}</text>\n")
            if lines:
                group = f'<g fill="{ink}" font-size="{n(text)}" text-anchor="middle"{form.more}>'
                self._canvas.add(f"{group}\n{''.join(lines)}</g>")

    def row_names(self) -> None:
        """Draws the queries' names, left of the grid."""
        axis = row_axis(self._window, self._size)
        for q, label in axis.ticks:
            y = self.top + self._size.height * (q + 0.5)
            self._canvas.text(self.left - 9, y + 0.34 * axis.size, axis.size, label, INK, "end")
            if not axis.all:
                self._canvas.add(f'<path stroke="{LINE}" d="M{n(self.left - 5)} {n(y)}h5"/>')

    def column_names(self) -> None:
        """Draws the keys' names, above the grid."""
        axis = column_axis(self._window, self._size)
        for k, label in axis.ticks:
            x = self.left + self._size.width * (k + 0.5)
            self._canvas.text(x, self.top - 10, axis.size, label, INK, "middle")
            if not axis.all:
                self._canvas.add(f'<path stroke="{LINE}" d="M{n(x)} {n(self.top - 5)}v5"/>')
