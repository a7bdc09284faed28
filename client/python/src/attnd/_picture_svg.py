"""Pictures of a bias window as SVG documents, the same as attnctl's (src/bias/picture_svg.cc)."""

from __future__ import annotations

import math
from typing import Callable, Dict, List, Optional, Tuple

from attnd._picture_colour import BucketKey, Colour, bucket_keys, diverging, largest_value
from attnd._picture_window import Window

Cell = Tuple[int, int]

# Sizes in pixels.
_LEFT, _TOP, _MARGIN, _GAP, _LEGEND_WIDTH = 92, 132, 32, 44, 190
_LARGEST_PLOT, _LARGEST_CELL = 640, 72
# The most cells a side with a label in each; with the product beside it; with every row and column named.
_MOST_LABELS, _MOST_PRODUCTS, _MOST_NAMES = 20, 8, 20
_MOST_SEPARATE = 40  # with a gap between cells
_SANS = 'class="s"'
_GREY = 'fill="#5a6272"'


def bucket_grid_svg(window: Window) -> str:
    """The grid of buckets. The window has buckets."""
    assert window.buckets is not None
    keys = bucket_keys(window)
    buckets = window.buckets.tolist()

    def colour(cell: Cell) -> Colour:
        return keys[buckets[cell[0]][cell[1]]].colour

    drawing = _Drawing(window)
    drawing.heading(
        'each product <tspan font-style="italic">q\u00b7k</tspan> is given <tspan font-style="italic">u</tspan> of the '
        "bucket of its offset, query position \u2212 key position"
    )
    drawing.cells(colour)
    size = 0.36 if drawing.longest <= _MOST_PRODUCTS else 0.46
    drawing.labels(colour, lambda cell: _indexed("u", buckets[cell[0]][cell[1]]), size)
    drawing.axes()
    return _with_legend(drawing, keys)


def heat_map_svg(window: Window) -> str:
    """The values of one head on a diverging scale. The window has values."""
    assert window.values is not None
    largest = largest_value(window)
    values = window.values.astype(float).tolist()
    # Few enough shades that long diagonals of nearly equal values merge, and enough that the eye sees no steps.
    shades = 64

    def colour(cell: Cell) -> Colour:
        scaled = values[cell[0]][cell[1]] / largest * shades
        return diverging(math.copysign(math.floor(abs(scaled) + 0.5), scaled) / shades)

    drawing = _Drawing(window)
    drawing.heading(f"bias of head {window.head}, added to each logit")
    drawing.cells(colour)
    size = 0.25 if drawing.longest <= _MOST_PRODUCTS else 0.26
    drawing.labels(colour, lambda cell: _minus(f"{values[cell[0]][cell[1]]:.2f}"), size)
    drawing.axes()
    drawing.colour_bar(largest)
    return drawing.finish(90, 160)


def _with_legend(drawing: _Drawing, keys: Dict[int, BucketKey]) -> str:
    """Columns as tall as the plot."""
    row = 30
    rows = int(max(4.0, math.floor(drawing.height / row)))
    for entry, (bucket, key) in enumerate(keys.items()):
        x = drawing.legend_left + _LEGEND_WIDTH * (entry // rows)
        y = _TOP + row * (entry % rows)
        drawing.add(f'<rect x="{x:.6g}" y="{y:.6g}" width="22" height="22" rx="4" fill="{key.colour.hex()}"/>')
        drawing.text(x + 32, y + 16, 18, _indexed("u", bucket))
        drawing.text(x + 66, y + 16, 13.5, _offsets_of(key), f"{_SANS} {_GREY}")
    columns = -(-len(keys) // rows)
    return drawing.finish(_LEGEND_WIDTH * columns, row * min(len(keys), rows))


class _Drawing:
    """One picture: cells on the left, a legend on the right."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._body: List[str] = []
        self.longest = max(window.queries, window.keys)
        self._cell = min(_LARGEST_CELL, _LARGEST_PLOT / self.longest)
        self._width = self._cell * window.keys
        self.height = self._cell * window.queries
        self.legend_left = _LEFT + self._width + _GAP

    def add(self, element: str) -> None:
        self._body.append(element + "\n")

    def text(self, x: float, y: float, size: float, content: str, attributes: str = "") -> None:
        self.add(f'<text x="{x:.4g}" y="{y:.4g}" font-size="{size:.3g}" {attributes}>{content}</text>')

    def cells(self, colour_of: Callable[[Cell], Colour]) -> None:
        """Every cell that is not masked, as runs along rows, gathered by colour."""
        window, masked = self._window, self._window.masked.tolist()

        def shade(q: int, k: int) -> Optional[Colour]:
            return None if masked[q][k] else colour_of((q, k))

        paths: Dict[str, List[str]] = {}
        merge = self.longest > _MOST_SEPARATE
        for q in range(window.queries):
            k = 0
            while k < window.keys:
                colour = shade(q, k)
                end = k + 1
                while merge and end < window.keys and shade(q, end) == colour:
                    end += 1
                if colour is not None:
                    paths.setdefault(colour.hex(), []).append(f"M{k} {q}h{end - k}v1h-{end - k}z")
                k = end
        # One unit is one cell. A stroke in the background's colour parts the cells of a small picture.
        gap = ' shape-rendering="crispEdges"' if merge else f' stroke="#ffffff" stroke-width="{2.5 / self._cell:.3g}"'
        self.add(f'<g transform="translate({_LEFT:g} {_TOP:g}) scale({self._cell:.6g})"{gap}>')
        for name in sorted(paths):
            self.add(f'<path fill="{name}" d="{"".join(paths[name])}"/>')
        self.add("</g>")
        self.add(
            f'<rect x="{_LEFT:g}" y="{_TOP:g}" width="{self._width:.6g}" height="{self.height:.6g}" fill="none" '
            'stroke="#c8ccd4" stroke-width="1"/>'
        )

    def labels(self, colour_of: Callable[[Cell], Colour], text: Callable[[Cell], str], size: float) -> None:
        """A label in each unmasked cell, if there is room."""
        if self.longest > _MOST_LABELS:
            return
        products = self.longest <= _MOST_PRODUCTS
        window, cell, masked = self._window, self._cell, self._window.masked.tolist()
        for q in range(window.queries):
            for k in range(window.keys):
                if masked[q][k]:
                    continue
                x = _LEFT + cell * (k + 0.5)
                y = _TOP + cell * (q + 0.5)
                ink = f'text-anchor="middle" fill="{colour_of((q, k)).ink().hex()}"'
                self.text(x, y + size * cell * (0.75 if products else 0.33), size * cell, text((q, k)), ink)
                if products:
                    product = _indexed("q", window.query_start + q) + _raised(
                        "\u00b7" + _indexed("k", window.key_start + k)
                    )
                    self.text(x, y - 0.17 * cell, 0.2 * cell, product, ink + ' opacity="0.85"')

    def heading(self, subtitle: str) -> None:
        self.text(_MARGIN, 42, 22, _escaped(self._window.title), f'{_SANS} font-weight="600"')
        self.text(_MARGIN, 67, 14.5, subtitle, f"{_SANS} {_GREY}")

    def axes(self) -> None:
        window, cell = self._window, self._cell
        names = self.longest <= _MOST_NAMES
        size = min(max(0.3 * cell, 11.0), 19.0) if names else 12

        def name(letter: str, position: int) -> str:
            return _indexed(letter, position) if names else str(position)

        for q in range(0, window.queries, self._step()):
            y = _TOP + cell * (q + 0.5) + size * 0.3
            self.text(_LEFT - 10, y, size, name("q", window.query_start + q), 'text-anchor="end"')
        for k in range(0, window.keys, self._step()):
            x = _LEFT + cell * (k + 0.5)
            self.text(x, _TOP - 12, size, name("k", window.key_start + k), 'text-anchor="middle"')
        middle = f'{_SANS} text-anchor="middle" {_GREY}'
        self.text(_LEFT + self._width / 2, _TOP - 40, 13, "key position", middle)
        y = _TOP + self.height / 2
        turned = f'{middle} transform="rotate(-90 {_LEFT - 62:g} {y:.6g})"'
        self.text(_LEFT - 62, y, 13, "query position", turned)

    def colour_bar(self, largest: float) -> None:
        x, height = self.legend_left, max(self.height, 160.0)
        self.add('<defs><linearGradient id="bar" x1="0" y1="1" x2="0" y2="0">')
        for i in range(11):
            self.add(f'<stop offset="{i * 10}%" stop-color="{diverging(i / 5 - 1).hex()}"/>')
        self.add("</linearGradient></defs>")
        self.add(
            f'<rect x="{x:.6g}" y="{_TOP:g}" width="20" height="{height:.6g}" fill="url(#bar)" stroke="#c8ccd4" '
            'stroke-width="1"/>'
        )
        step = _round_step(largest)
        marks = math.floor(largest * 1.0001 / step)
        for i in range(-marks, marks + 1):
            value = i * step
            y = _TOP + height * (1 - (value / largest + 1) / 2)
            self.add(f'<path d="M{x + 20:.6g} {y:.6g}h5" stroke="#5a6272"/>')
            self.text(x + 30, y + 4.5, 13, _minus(f"{value:g}"), _SANS)

    def finish(self, legend_width: float, legend_height: float) -> str:
        width = self.legend_left + legend_width + _MARGIN
        height = _TOP + max(self.height, legend_height) + _MARGIN
        size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
            "font-family=\"'STIX Two Text','Latin Modern Roman',Cambria,Georgia,'DejaVu Serif',serif\" "
            'fill="#20242c">\n'
            "<style>.s{font-family:Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif}</style>\n"
            f"<title>{_escaped(self._window.title)}</title>\n"
            f'<rect width="100%" height="100%" fill="#ffffff"/>\n{"".join(self._body)}</svg>\n'
        )

    def _step(self) -> int:
        """Of the axes' labels: at most some ten a side, at round positions."""
        if self.longest <= _MOST_NAMES:
            return 1
        step, following = 1, 2
        while self.longest // step > 10:
            step, following = following, following * 2
        return step


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _indexed(letter: str, index: int) -> str:
    """A letter with an index, as mathematics sets it. The index is lowered by dy, which every viewer knows; what
    follows in the same line must be raised again, which `_raised` does."""
    return f'<tspan font-style="italic">{letter}</tspan><tspan dy="0.28em" font-size="68%">{index}</tspan>'


def _raised(text: str) -> str:
    return f'<tspan dy="-0.19em">{text}</tspan>'


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")


def _offsets_of(key: BucketKey) -> str:
    if key.nearest == key.farthest:
        return f"offset {_minus(str(key.nearest))}"
    return f"offsets {_minus(str(key.nearest))} to {_minus(str(key.farthest))}"


def _round_step(largest: float) -> float:
    """A round number near a third of the range, for the colour bar's marks."""
    power = 10.0 ** math.floor(math.log10(largest))
    for factor in (0.2, 0.5, 1.0, 2.0):
        if largest / (power * factor) <= 4:
            return power * factor
    return power * 5
