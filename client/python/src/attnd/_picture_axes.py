"""Decides which rows and columns of a grid are named, and how, as src/bias/picture_axes.cc does."""

from __future__ import annotations

from typing import List, NamedTuple, Tuple

from attnd._picture_canvas import Label, indexed, plain
from attnd._picture_window import Window

_TICK, _LARGEST_NAME = 11.0, 19.0  # sizes of text
_MOST_TICKS = 12


class Size(NamedTuple):
    """The size of a window's cells, and of the labels in them (0: no labels), in pixels; and the labels' form."""

    width: float
    height: float
    label: float
    form: int


class Axis(NamedTuple):
    """
    Attributes:
        all: whether every row or column is named, by a letter with an index; otherwise some are, by their positions.
        size: of the text, in pixels.
        ticks: the named rows or columns, and their names.
    """

    all: bool
    size: float
    ticks: List[Tuple[int, Label]]


def row_axis(window: Window, size: Size) -> Axis:
    step = _steps(window, size)[0]
    return _axis(step, window, size, _ticks(window.query_start, window.queries, step, "q"))


def column_axis(window: Window, size: Size) -> Axis:
    step = _steps(window, size)[1]
    return _axis(step, window, size, _ticks(window.key_start, window.keys, step, "k"))


def _axis(step: int, window: Window, size: Size, ticks: List[Tuple[int, Label]]) -> Axis:
    return Axis(step == 1, _name_size(window, size) if step == 1 else _TICK, ticks)


def room_for_rows(window: Window, size: Size) -> float:
    """The width of the queries' names, left of the grid."""
    axis = row_axis(window, size)
    return max(label.ems * axis.size for _, label in axis.ticks)


def _last_key(window: Window) -> Label:
    return indexed("k", window.key_start + window.keys - 1)


def _name_size(window: Window, size: Size) -> float:
    fits = (size.width - 8) / _last_key(window).ems
    return min(max(min(0.3 * min(size.width, size.height), fits), _TICK), _LARGEST_NAME)


def _steps(window: Window, size: Size) -> Tuple[int, int]:
    """The steps between named rows and between named columns: 1 if every one has room for its name, or a power of
    two."""
    name = _name_size(window, size)
    key = _last_key(window).ems * name + 4
    number = plain(str(window.key_start + window.keys - 1)).ems * _TICK + 10
    rows = _step(window.queries, size.height, 1.1 * name, 1.5 * _TICK)
    columns = _step(window.keys, size.width, key, number)
    if size.width == size.height:
        rows = columns = max(rows, columns)
    return rows, columns


def _step(count: int, cell: float, name: float, number: float) -> int:
    step = 1
    while (step == 1 and cell < name) or (step > 1 and (step * cell < number or count // step > _MOST_TICKS)):
        step *= 2
    return step


def _ticks(start: int, count: int, step: int, letter: str) -> List[Tuple[int, Label]]:
    """Rows or columns at multiples of the step."""
    places = list(range(-start % step, count, step))
    if not places:
        return [(0, plain(str(start)))]
    return [(i, indexed(letter, start + i) if step == 1 else plain(str(start + i))) for i in places]
