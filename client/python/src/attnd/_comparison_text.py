"""Writes a comparison of biases as the same text as attnctl (src/bias/comparison_text.cc)."""

from __future__ import annotations

import math
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from attnd._comparison_offsets import Comparison, described
from attnd._number_text import rounded


class _Curve(NamedTuple):
    """The values of one head, by offset from ``first`` on."""

    first: int
    values: Any

    def over(self, first: int, last: int) -> str:
        """The lowest and the highest value in a range: "-8 .. -4", or "-0.5" if they are equal."""
        part = self.values[first - self.first : last - self.first + 1]
        least, most = (rounded(float(value), 4) for value in (part.min(), part.max()))
        return least if least == most else f"{least} .. {most}"

    def weight(self, offset: int) -> str:
        """The weight of a key at ``offset`` relative to one at offset 0 with the same q.k."""
        difference = float(self.values[offset - self.first]) - float(self.values[-self.first])
        try:
            return "x" + rounded(math.exp(difference), 3)
        except OverflowError:
            return "xinf"


def comparison_text(comparison: Comparison) -> str:
    text = f"bias by offset, query position - key position, from {comparison.min_offset} to {comparison.max_offset}"
    length = comparison.trained_length
    if length is not None:
        text += f"; trained on {length} tokens, so on offsets up to {length - 1}"
    text += "\n\n" + "".join(_summary(comparison, s) for s in range(len(comparison.sources)))
    text += (
        "\nweight against offset 0: e^(bias - bias at offset 0), what a key weighs against one at the query's own\n"
        "position that has the same q.k\n"
    )
    return text + "".join(_panel(comparison, panel) for panel in comparison.panels)


def _letter(s: int) -> str:
    return chr(ord("A") + s)


def _summary(comparison: Comparison, s: int) -> str:
    source = comparison.sources[s]
    parameters = source.table.parameters_per_head
    offsets = comparison.max_offset - comparison.first_offset(s) + 1
    text = (
        f"{_letter(s)}  {source.label}\n   {described(source)}\n   a head has {parameters} "
        f"{'parameter' if parameters == 1 else 'parameters'} and {_distinct(comparison, s)} different values at "
        f"{offsets} offsets\n   "
    )
    saturates = source.table.saturates_at
    if saturates is None:
        return text + "never saturates: it falls by its slope with each token\n"
    if saturates > comparison.max_offset:
        return text + f"saturates at offset {saturates}, farther than shown\n"
    return text + f"saturates at offset {saturates}: one value from there on\n"


def _distinct(comparison: Comparison, s: int) -> int:
    """The number of different values of source ``s`` over the offsets shown, in the head that has most."""
    heads = {comparison.head_of(s, panel) for panel in comparison.panels} - {None}
    return max((len(np.unique(comparison.values(s, head))) for head in heads if head is not None), default=0)


def _panel(comparison: Comparison, panel: int) -> str:
    curves: List[Optional[_Curve]] = []
    for s in range(len(comparison.sources)):
        head = comparison.head_of(s, panel)
        curves.append(None if head is None else _Curve(comparison.first_offset(s), comparison.values(s, head)))

    def line(name: str, offset: int, cell: Callable[[_Curve], str]) -> List[str]:
        return [name] + [
            "no such head" if curve is None else cell(curve) if offset >= curve.first else "masked" for curve in curves
        ]

    lines: List[Union[str, List[str]]] = [["offset", *map(_letter, range(len(curves)))]]
    length = comparison.trained_length
    for first, last in comparison.ranges():
        if length is not None and first in (length, 1 - length):
            lines.append(f"  ---- trained length {length} ----")
        name = str(first) if first == last else f"{first} .. {last}"
        lines.append(line(name, first, lambda curve, a=first, b=last: curve.over(a, b)))  # type: ignore[misc]
    lines.append("  weight against offset 0")
    for offset in comparison.landmarks():
        lines.append(line(str(offset), offset, lambda curve, at=offset: curve.weight(at)))  # type: ignore[misc]
    if length is not None:
        lines.append("  lowest and highest")
        for name, first, last in _parts(comparison):
            lines.append(line(name, last, lambda curve, a=first, b=last: curve.over(max(a, curve.first), b)))  # type: ignore[misc]
    return f"\n{comparison.panel_name(panel)}\n{_drawn(lines)}"


def _parts(comparison: Comparison) -> List[Tuple[str, int, int]]:
    """The ranges of offsets within the trained length, and beyond it on either side."""
    least, most, length = comparison.min_offset, comparison.max_offset, comparison.length
    parts = [("within", max(least, 1 - length), min(most, length - 1))]
    if most >= length:
        parts.append(("beyond", length, most))
    if least <= -length:
        parts.append(("beyond, keys after", least, -length))
    return parts


def _drawn(lines: List[Union[str, List[str]]]) -> str:
    """Joins lines; rows of cells are right-aligned in columns of their widest cell."""
    rows = [line for line in lines if isinstance(line, list)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(
        (line if isinstance(line, str) else "".join(f"  {cell:>{width}}" for cell, width in zip(line, widths))) + "\n"
        for line in lines
    )
