"""The layout of a comparison's picture: panels, offset axis and value axis; as in src/bias/comparison_axes.cc."""

from __future__ import annotations

import math
from typing import List, NamedTuple, Tuple

from attnd._comparison_offsets import Comparison
from attnd._drawing import round_step

PANEL_GAP, PANEL_INSET = 26.0, 4.0  # pixels
_TICK_GAP, _CHARACTER, _MOST_STEPS = 10, 6.6, 8
_FAINTEST = 10  # see span_of


def panel_columns(panels: int) -> int:
    """Number of panels side by side."""
    if panels <= 1:
        return 1
    if panels <= 4:
        return 2
    return 3 if panels <= 6 or panels == 9 else 4


def size_of_panels(columns: int) -> Tuple[float, float]:
    """Width and height in pixels."""
    return {1: (760.0, 400.0), 2: (430.0, 260.0), 3: (300.0, 200.0)}.get(columns, (236.0, 170.0))


class OffsetAxis:
    """The horizontal axis of a panel: offsets, linear, or by log2(1 + |offset|) on both sides of 0."""

    def __init__(self, comparison: Comparison, width: float) -> None:
        self._log = comparison.log_axis
        self._min_offset, self._max_offset = comparison.min_offset, comparison.max_offset
        self._low, self._high = self._place(self._min_offset), self._place(self._max_offset)
        self._width = width

    def x(self, offset: int) -> float:
        inner = self._width - 2 * PANEL_INSET
        return PANEL_INSET + inner * (self._place(offset) - self._low) / (self._high - self._low)

    def ticks(self) -> List[int]:
        """Round offsets whose labels fit, ascending."""
        label = _CHARACTER * len(str(self._min_offset if self._min_offset < 0 else self._max_offset))

        def has_room(tick: int) -> bool:
            """Whether a label at the edge stays clear of the next panel's labels."""
            return self.x(tick) + label / 2 <= self._width + PANEL_GAP / 2 - 3

        ticks = [0]
        if self._log:
            last, power = self.x(0), 1
            while power <= self._max_offset:
                if self.x(power) - last >= label + _TICK_GAP and has_room(power):
                    ticks.append(power)
                    last = self.x(power)
                power *= 2
        else:
            step = 1
            while step <= self._max_offset and (
                self.x(step) - self.x(0) < label + _TICK_GAP or self._max_offset // step > _MOST_STEPS
            ):
                step *= 2
            ticks += [tick for tick in range(step, self._max_offset + 1, step) if has_room(tick)]
        return ticks if self._min_offset == 0 else [-tick for tick in reversed(ticks[1:])] + ticks

    def _place(self, offset: int) -> float:
        if not self._log:
            return float(offset)
        return math.copysign(math.log2(1.0 + abs(offset)), offset)


class ValueSpan(NamedTuple):
    """The range of the value axis, which all panels share; ``cut``: whether curves that fall forever leave it."""

    low: float
    high: float
    cut: bool

    def ticks(self) -> List[float]:
        """At most six round values, ascending."""
        step = round_step(self.high - self.low, 5)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def span_of(comparison: Comparison) -> ValueSpan:
    """The range of all values; of a curve that falls forever, only down to 10 below its highest value."""
    lows, highs, cut = [], [], False
    for s, source in enumerate(comparison.sources):
        for panel in comparison.panels:
            head = comparison.head_of(s, panel)
            if head is None:
                continue
            values = comparison.values(s, head)
            low, high = float(values.min()), float(values.max())
            if source.table.saturates_at is None and low < high - _FAINTEST:
                low, cut = high - _FAINTEST, True
            lows.append(low)
            highs.append(high)
    low, high = min(lows, default=0.0), max(highs, default=0.0)
    room = (high - low) * 0.04 if high > low else 0.5 + abs(high) * 0.01
    return ValueSpan(low - room, high + room, cut)
