"""Maps buckets and values to the colours and text of a picture, as src/bias/picture_scale.cc does."""

from __future__ import annotations

import math
from typing import Dict, List, NamedTuple, Optional

from attnd._picture_colour import NOT_A_NUMBER, Colour, diverging, opposite, sequential
from attnd._picture_window import Range, Window

# Colours on each side of zero: few enough that long diagonals of nearly equal values merge, but enough that no steps
# are visible.
SHADES = 32
_NEAR_ZERO = 0.1  # of the diverging scale: the smallest values begin here, to stand out from zero


class BucketKey(NamedTuple):
    """A bucket in the legend: its colour, and its first and last offset (None: unbounded)."""

    colour: Colour
    first: Optional[int]
    last: Optional[int]

    @property
    def after(self) -> bool:
        """Whether the bucket is for keys after the query."""
        return self.last is not None and self.last < 0


def bucket_keys(window: Window) -> Dict[int, BucketKey]:
    """The buckets in the window, by number. Each has its offsets in the table without masked ones, or its offsets in
    the window if the window does not know the table's."""
    ranges: Dict[int, Range] = {}
    buckets = window.by_offset(window.buckets)
    for offset in window.visible():
        bucket = buckets[offset]
        first, last = ranges.get(bucket, (offset, offset))
        ranges[bucket] = (first, offset)
    for bucket, (first, last) in window.bucket_ranges.items():
        if bucket in ranges:
            hidden = window.causal and (first is None or first < 0)
            ranges[bucket] = (0 if hidden else first, last)
    # Each side's buckets share its scale by rank. Bucket numbers grow with the distance on both sides.
    after = sum(1 for _, last in ranges.values() if last is not None and last < 0)
    keys: Dict[int, BucketKey] = {}
    ranks = [0, 0]
    for bucket, (first, last) in sorted(ranges.items()):
        side = last is not None and last < 0
        count = after if side else len(ranges) - after
        place = ranks[side] / (count - 1) if count > 1 else 0.0
        ranks[side] += 1
        keys[bucket] = BucketKey(opposite(place) if side else sequential(place), first, last)
    return keys


def knows_ranges(window: Window, keys: Dict[int, BucketKey]) -> bool:
    """Whether the window knows the offsets in the table of all buckets in `keys`."""
    return all(bucket in window.bucket_ranges for bucket in keys)


def offsets_of(key: BucketKey) -> str:
    """A bucket's offsets as text, nearest first: "0", "2 to 3", "from 4 on"."""
    if key.first is None:
        return f"from {key.last} down"
    if key.last is None:
        return f"from {key.first} on"
    if key.first == key.last:
        return str(key.first)
    return f"{key.last} to {key.first}" if key.after else f"{key.first} to {key.last}"


def colour_of_shade(shade: int) -> Colour:
    """The colour of a shade from -SHADES to SHADES; 0 is for the value zero."""
    if shade == 0:
        return diverging(0)
    t = _NEAR_ZERO + (1 - _NEAR_ZERO) * abs(shade) / SHADES
    return diverging(-t if shade < 0 else t)


class ValueScale:
    """The colours of values, symmetric about zero, and the number of digits of their labels.

    Only finite values determine the scale. An infinite value has the colour of its end of the scale; NaN has its own.
    """

    def __init__(self, window: Window) -> None:
        assert window.values is not None
        self.values: List[Dict[int, float]] = [window.by_offset(cells.astype(float)) for cells in window.values]
        visible = [values[offset] for values in self.values for offset in window.visible()]
        shown = [value for value in visible if math.isfinite(value)]
        self.least, self.greatest = min(shown, default=0.0), max(shown, default=0.0)
        self.largest = max(abs(self.least), abs(self.greatest)) or 1.0
        magnitude = math.floor(math.log10(self.largest))
        self._digits = 0 if magnitude > 2 else 1 if magnitude == 2 else max(2, 1 - magnitude)
        self._scientific = magnitude > 4 or magnitude < -4

    def colour(self, value: float) -> Colour:
        """The colour of a value. No other value has the colour of zero."""
        if math.isnan(value):
            return NOT_A_NUMBER
        if value == 0:
            return colour_of_shade(0)
        shade = max(1, math.floor(min(abs(value) / self.largest, 1.0) * SHADES + 0.5))
        return colour_of_shade(-shade if value < 0 else shade)

    def label(self, value: float) -> str:
        """The label of a value. Only zero is written "0"."""
        if value == 0:
            return "0"
        return f"{value:.1e}" if self._scientific else f"{value:.{self._digits}f}"
