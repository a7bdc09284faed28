"""The offsets, heads and values of a comparison; the Python form of src/bias/comparison.cc."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from attnd._arguments import integer
from attnd._bias_rules import HeldTable
from attnd._bias_sources import Source
from attnd._number_text import rounded
from attnd.errors import InvalidArgument
from attnd.models import AlibiSlopes, T5Buckets

_MAX_SOURCES, _MAX_PANELS, _MAX_OFFSET, _MAX_CELLS = 8, 256, 1 << 20, 1 << 24
_REACH_OF_NONE = 128  # if no table has a reach
_LINEAR_UP_TO = 64  # offsets; with axis "auto" a longer axis is logarithmic
_MOST_RANGES = 64  # with more, only powers of two


class Comparison(NamedTuple):
    """What is compared. A source with one selected head, or with only one head, is in every panel; the others show head
    h in panel h, if they have it.

    Attributes:
        sources: the biases.
        panels: the heads, a panel for each.
        min_offset: 0, or -max_offset.
        max_offset: the largest offset shown.
        trained_length: the caller's, or None.
        length: the trained length, or else the longest reach of a table.
        log_axis: whether the picture's offsets are on a log scale.
        mask: None, "causal" or "none".
        held: float32 values by source and head.
    """

    sources: List[Source]
    panels: List[int]
    min_offset: int
    max_offset: int
    trained_length: Optional[int]
    length: int
    log_axis: bool
    mask: Optional[str]
    held: Dict[Tuple[int, int], Any]

    def head_of(self, s: int, panel: int) -> Optional[int]:
        """The head of source ``s`` that a panel shows; None if it has none."""
        return _head_of(self.sources[s], panel)

    def panel_name(self, panel: int) -> str:
        """A panel's heading, for example "head 3"."""
        varies = any(source.head is None and source.table.heads > 1 for source in self.sources)
        named = any(source.head is not None for source in self.sources)
        return "the heads named" if named and not varies else f"head {panel}"

    def first_offset(self, s: int) -> int:
        """The lowest offset at which source ``s`` is shown: 0 if keys after the query are masked."""
        return _first_offset(self.sources[s], self.mask, self.min_offset)

    def offsets_of(self, s: int) -> Any:
        return np.arange(self.first_offset(s), self.max_offset + 1)

    def values(self, s: int, head: int) -> Any:
        """The float32 values of offsets first_offset(s) to max_offset."""
        return self.held[s, head]

    def ranges(self) -> List[Tuple[int, int]]:
        """Partitions all offsets into ascending ranges: the tables' buckets, then powers of two; split at the trained
        length."""
        starts = {0, self.min_offset}
        for after in (False, True) if self.min_offset < 0 else (False,):
            distances: Set[int] = set()
            for source in self.sources:
                distances.update(_edges(source.table, after))
            if len(distances) > _MOST_RANGES:
                distances.clear()
            beyond = max(distances, default=0)
            power = 1
            while power <= self.max_offset:
                if power > beyond:
                    distances.add(power)
                power *= 2
            if self.trained_length is not None:
                distances.add(self.trained_length)
            distances.add(1)
            starts.update(1 - d if after else d for d in distances if 1 <= d <= self.max_offset)
        ordered = sorted(starts)
        ends = [start - 1 for start in ordered[1:]] + [self.max_offset]
        return list(zip(ordered, ends))

    def landmarks(self) -> List[int]:
        """Offsets worth naming, ascending: around ``length`` and its multiples."""
        distances = {1, self.length - 1, self.max_offset}
        distance = self.length
        while distance <= self.max_offset:
            distances.add(distance)
            distance *= 2
        kept = {d for d in distances if 1 <= d <= self.max_offset}
        return sorted(kept | ({-d for d in kept} if self.min_offset < 0 else set()))


def of_sources(
    sources: List[Source],
    heads: Optional[Sequence[int]],
    max_offset: Optional[int],
    trained_length: Optional[int],
    axis: str,
    mask: Optional[str],
) -> Comparison:
    """Makes a comparison. Raises InvalidArgument for no or too many sources, a head that no source has, or a number out
    of range."""
    if not 1 <= len(sources) <= _MAX_SOURCES:
        raise InvalidArgument.of("sources", f"1 to {_MAX_SOURCES}", str(len(sources)))
    for source in sources:
        if source.head is not None:
            _in_range(f"{source.label}: head", source.head, 0, source.table.heads - 1)
    panels = _panels(sources, heads)
    if trained_length is not None:
        trained_length = _in_range("trained_length", trained_length, 1, _MAX_OFFSET)
    reach = min(max(_reach(source.table) for source in sources) or _REACH_OF_NONE, _MAX_OFFSET)
    if max_offset is None:
        max_offset = min(_MAX_OFFSET, 4 * max(reach, trained_length or 0))
    max_offset = _in_range("max_offset", max_offset, 1, _MAX_OFFSET)
    both_sides = mask == "none" or (mask is None and any(source.table.bidirectional for source in sources))
    min_offset = -max_offset if both_sides else 0
    log_axis = axis == "log" or (axis == "auto" and max_offset > _LINEAR_UP_TO)
    held = _held(sources, panels, min_offset, max_offset, mask)
    length = reach if trained_length is None else trained_length
    return Comparison(sources, panels, min_offset, max_offset, trained_length, length, log_axis, mask, held)


def described(source: Source) -> str:
    """Describes a source, for example "T5, 32 buckets, max distance 128; causal; 8 heads"."""
    table = source.table
    rule = table.rule
    if isinstance(rule, T5Buckets):
        text = f"T5, {rule.num_buckets} buckets, max distance {rule.max_distance}"
    elif isinstance(rule, AlibiSlopes):
        slopes: Any = rule.slopes
        least, most = float(slopes.min()), float(slopes.max())
        text = f"ALiBi, {'slopes' if most > least else 'slope'} {rounded(most, 4)}"
        if most > least:
            text += f" to {rounded(least, 4)}"
    else:
        text = f"a value per offset, {rule.min_offset} to {rule.min_offset + table.parameters_per_head - 1}"
    text += f"; {'bidirectional' if table.bidirectional else 'causal'}; {table.heads} "
    text += "head" if table.heads == 1 else "heads"
    if source.head is not None:
        text += f", here head {source.head}"
    return f"{text}; {source.note}" if source.note else text


def _head_of(source: Source, panel: int) -> Optional[int]:
    if source.head is not None:
        return source.head
    if source.table.heads == 1:
        return 0
    return panel if panel < source.table.heads else None


def _first_offset(source: Source, mask: Optional[str], min_offset: int) -> int:
    masked = mask == "causal" or (mask is None and not source.table.bidirectional)
    return 0 if masked else min_offset


def _panels(sources: List[Source], heads: Optional[Sequence[int]]) -> List[int]:
    most = max([1, *(source.table.heads for source in sources if source.head is None)])
    panels = list(range(most)) if heads is None or len(heads) == 0 else list(heads)
    if len(panels) > _MAX_PANELS:
        raise InvalidArgument.of("heads", f"at most {_MAX_PANELS} at a time", str(len(panels)))
    return [_in_range("heads", head, 0, most - 1) for head in panels]


def _held(
    sources: List[Source], panels: List[int], min_offset: int, max_offset: int, mask: Optional[str]
) -> Dict[Tuple[int, int], Any]:
    wanted: List[Tuple[int, int]] = []
    cells = 0
    for s, source in enumerate(sources):
        heads = sorted({head for head in (_head_of(source, panel) for panel in panels) if head is not None})
        wanted += [(s, head) for head in heads]
        cells += len(heads) * (max_offset - _first_offset(source, mask, min_offset) + 1)
    if cells > _MAX_CELLS:
        raise InvalidArgument.of("max_offset", f"at most {_MAX_CELLS} values, of all sources and heads", str(cells))
    held = {}
    for s, head in wanted:
        offsets = np.arange(_first_offset(sources[s], mask, min_offset), max_offset + 1)
        held[s, head] = sources[s].table.values(head, offsets)
    return held


def _edges(table: HeldTable, after: bool) -> List[int]:
    """Distances at which one side's values may change; empty if there are too many to list."""
    if isinstance(table.rule, T5Buckets):
        return [] if after and not table.bidirectional else table.first_distances
    if isinstance(table.rule, AlibiSlopes):
        return []
    far = -table.rule.min_offset if after else table.rule.min_offset + table.parameters_per_head - 1
    return [] if far >= _MOST_RANGES else list(range(1, far + 1))


def _reach(table: HeldTable) -> int:
    """The farthest offset at which a rule still distinguishes distances, by its own parameters; 0 if it has no such
    limit."""
    if isinstance(table.rule, T5Buckets):
        return table.rule.max_distance
    if isinstance(table.rule, AlibiSlopes):
        return 0
    return max(abs(table.rule.min_offset), abs(table.rule.min_offset + table.parameters_per_head - 1))


def _in_range(field: str, value: Any, least: int, most: int) -> int:
    number = integer(field, value, -(1 << 63))
    if not least <= number <= most:
        raise InvalidArgument.of(field, f"{least} to {most}", str(number))
    return number
