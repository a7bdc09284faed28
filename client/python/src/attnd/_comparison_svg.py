"""Draws a comparison of biases as the same SVG document as attnctl (src/bias/comparison_svg.cc)."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np

from attnd._comparison_axes import PANEL_GAP, PANEL_INSET, OffsetAxis, panel_columns, size_of_panels, span_of
from attnd._comparison_offsets import Comparison, described
from attnd._drawing import escaped, minus
from attnd._number_text import rounded

# Each source has its own colour and dash, so that the curves can be distinguished without colour.
_STROKES = (
    ("#005a9e", ""),
    ("#a84300", "7 4"),
    ("#006b52", "2 3"),
    ("#7d3280", "10 3 2 3"),
    ("#20242c", "14 5"),
    ("#9c2740", "4 2"),
    ("#4a5f00", "8 3 2 3 2 3"),
    ("#5a6272", "1 3"),
)
_MARGIN, _LEFT, _TOP, _LEGEND_ROW, _GAP_Y = 32.0, 92.0, 116.0, 24.0, 60.0  # pixels
_MAX_TITLE, _MAX_NAME = 80, 40  # bytes; longer lists and names are replaced by numbers and letters
_GREY = ' fill="#5a6272"'
_BELOW = "below the axis: less than 1/20,000 of a curve's largest weight"


def comparison_svg(comparison: Comparison) -> str:
    return _Drawing(comparison).draw()


class _Drawing:
    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._columns = panel_columns(len(comparison.panels))
        self._width, self._height = size_of_panels(self._columns)
        self._plots_top = _TOP + _LEGEND_ROW * len(comparison.sources) + 44
        self._across = OffsetAxis(comparison, self._width)
        self._span = span_of(comparison)
        self._ticks = self._across.ticks()
        # The x of every offset, and its column of pixels. Shorter curves use the tail, since all end at max_offset.
        self._xs = [self._across.x(offset) for offset in range(comparison.min_offset, comparison.max_offset + 1)]
        self._pixels = np.floor(np.array(self._xs))
        self._body: List[str] = []

    def draw(self) -> str:
        self._heading()
        for i in range(len(self._comparison.panels)):
            self._panel(i)
        self._axis_names()
        return self._finish()

    def _add(self, element: str) -> None:
        self._body.append(element + "\n")

    def _text(self, x: float, y: float, size: float, content: str, attributes: str = "") -> None:
        self._add(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{attributes}>{content}</text>')

    def _title(self) -> str:
        names = ", ".join(source.label for source in self._comparison.sources)
        if len(names.encode()) > _MAX_TITLE:
            names = f"{len(self._comparison.sources)} sources"
        return f"Bias by offset: {names}"

    def _heading(self) -> None:
        self._text(_MARGIN, 42, 20, escaped(self._title()), ' font-weight="600"')
        self._text(_MARGIN, 66, 13.5, "added to each logit: 1 more is 2.7 times the weight", _GREY)
        notes = []
        if self._beyond_is_shown():
            notes.append(f"grey: beyond the trained length of {self._comparison.trained_length}")
        if self._span.cut:
            notes.append(_BELOW)
        if notes:
            self._text(_MARGIN, 87, 13.5, "; ".join(notes), _GREY)
        for s, source in enumerate(self._comparison.sources):
            y = _TOP + _LEGEND_ROW * s
            self._add(f'<path d="M{_MARGIN:.1f} {y:.1f}H{_MARGIN + 56:.1f}"{_stroke(s)}/>')
            name = f"source {chr(ord('A') + s)}" if len(source.label.encode()) > _MAX_NAME else source.label
            self._text(
                _MARGIN + 68,
                y + 4.5,
                13.5,
                f'<tspan font-weight="600">{escaped(name)}</tspan><tspan dx="10" fill="#5a6272">'
                f"{escaped(described(source))}</tspan>",
            )

    def _y(self, value: float) -> float:
        low, high, _ = self._span
        # Clamped below the axis: a curve still leaves the panel, but its coordinates stay small.
        within = max(value, low - (high - low))
        return PANEL_INSET + (self._height - 2 * PANEL_INSET) * (high - within) / (high - low)

    def _panel(self, i: int) -> None:
        comparison = self._comparison
        row, column = divmod(i, self._columns)
        left = _LEFT + column * (self._width + PANEL_GAP)
        top = self._plots_top + row * (self._height + _GAP_Y)
        panel = comparison.panels[i]
        name = comparison.panel_name(panel)
        heads = [comparison.head_of(s, panel) for s in range(len(comparison.sources))]
        shown = len(heads) - heads.count(None)
        if shown < len(heads):
            name += f" ({shown} of {len(heads)} sources)"
        self._text(left, top - 8, 13, name, ' font-weight="600"')
        self._add(f'<svg x="{left:.1f}" y="{top:.1f}" width="{self._width:g}" height="{self._height:g}">')
        self._beyond()
        self._grid()
        for s, head in enumerate(heads):
            if head is not None:
                self._add(f'<path d="{self._curve(comparison.values(s, head))}"{_stroke(s)}/>')
        self._add("</svg>")
        self._add(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{self._width:g}" height="{self._height:g}" fill="none" '
            'stroke="#7a8290"/>'
        )
        for tick in self._ticks:
            x = left + self._across.x(tick)
            self._text(x, top + self._height + 17, 11.5, _number(tick), f' text-anchor="middle"{_GREY}')
        if column > 0:
            return
        for value in self._span.ticks():
            self._text(left - 8, top + self._y(value) + 4, 11.5, _number(value), f' text-anchor="end"{_GREY}')

    def _beyond_is_shown(self) -> bool:
        length = self._comparison.trained_length
        return length is not None and length <= self._comparison.max_offset

    def _beyond(self) -> None:
        """Shades the offsets beyond the trained length in grey, with a line where they begin."""
        if not self._beyond_is_shown():
            return
        length = self._comparison.length
        x = (self._across.x(length - 1) + self._across.x(length)) / 2
        height = f"{self._height:g}"
        self._add(f'<rect x="{x:.1f}" width="{self._width - x:.1f}" height="{height}" fill="#eef0f4"/>')
        lines = f"M{x:.1f} 0V{height}"
        if self._comparison.min_offset < 0:
            mirrored = self._width - x
            self._add(f'<rect width="{mirrored:.1f}" height="{height}" fill="#eef0f4"/>')
            lines += f"M{mirrored:.1f} 0V{height}"
        self._add(f'<path d="{lines}" stroke="#5a6272"/>')

    def _grid(self) -> None:
        lines = "".join(f"M{self._across.x(tick):.1f} 0V{self._height:g}" for tick in self._ticks)
        lines += "".join(f"M0 {self._y(value):.1f}H{self._width:g}" for value in self._span.ticks())
        self._add(f'<path d="{lines}" stroke="#d5d9e0" stroke-width="0.8"/>')

    def _curve(self, values: Any) -> str:
        """The path of a curve. Of the values in one column of pixels only the first, lowest, highest and last are
        drawn, which looks the same (Jugel et al. 2014, "M4"); a level stretch is one step."""
        xs, pixels = self._xs[-len(values) :], self._pixels[-len(values) :]
        begins = [0, *(np.flatnonzero(np.diff(pixels)) + 1).tolist()]
        points: List[Tuple[str, str]] = []
        texts: Dict[float, str] = {}
        for begin, end in zip(begins, [*begins[1:], len(values)]):
            part = values[begin:end]
            kept = {begin, begin + int(part.argmin()), begin + int(part.argmax()), end - 1}
            for i in sorted(kept):
                value = float(values[i])
                y = texts.get(value) or texts.setdefault(value, f"{self._y(value):.1f}")
                if len(points) > 1 and points[-1][1] == y == points[-2][1]:
                    points.pop()
                points.append((f"{xs[i]:.1f}", y))
        path = f"M{points[0][0]} {points[0][1]}"
        for before, (x, y) in zip(points, points[1:]):
            path += f"H{x}" if y == before[1] else f"L{x} {y}"
        return path

    def _plots_height(self) -> float:
        rows = -(-len(self._comparison.panels) // self._columns)
        return rows * (self._height + _GAP_Y) - _GAP_Y

    def _plots_width(self) -> float:
        return self._columns * (self._width + PANEL_GAP) - PANEL_GAP

    def _axis_names(self) -> None:
        scale = ", log scale" if self._comparison.log_axis else ""
        sides = "; below 0: keys after the query" if self._comparison.min_offset < 0 else ""
        self._text(
            _LEFT + self._plots_width() / 2,
            self._plots_top + self._plots_height() + 44,
            13.5,
            f"offset, query position \u2212 key position{scale}{sides}",
            f' text-anchor="middle"{_GREY}',
        )
        x, middle = _MARGIN + 4, self._plots_top + self._plots_height() / 2
        turned = f' text-anchor="middle" fill="#5a6272" transform="rotate(-90 {x:.1f} {middle:.1f})"'
        self._text(x, middle, 13.5, "bias", turned)

    def _finish(self) -> str:
        width = _LEFT + self._plots_width() + _MARGIN
        height = self._plots_top + self._plots_height() + 44 + _MARGIN - 8
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" '
            "font-family=\"Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif\" fill=\"#20242c\">\n"
            f'<title>{escaped(self._title())}</title>\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
            f"{''.join(self._body)}</svg>\n"
        )


def _stroke(s: int) -> str:
    colour, dashes = _STROKES[s]
    attributes = f' fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"'
    return f'{attributes} stroke-dasharray="{dashes}"' if dashes else attributes


def _number(value: float) -> str:
    return minus(rounded(value, 6))
