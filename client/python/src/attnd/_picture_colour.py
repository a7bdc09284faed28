"""Colours of the pictures, as src/bias/picture_colour.cc has them."""

from __future__ import annotations

import math
from typing import Dict, NamedTuple, Sequence, Tuple

import numpy as np

from attnd._picture_window import Window


class Colour(NamedTuple):
    red: int
    green: int
    blue: int

    def hex(self) -> str:
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"

    def ink(self) -> Colour:
        """Black or white, whichever reads better on this."""
        luma = 0.299 * self.red + 0.587 * self.green + 0.114 * self.blue
        return Colour(0x1A, 0x1A, 0x1A) if luma > 140 else Colour(0xFF, 0xFF, 0xFF)


_VIRIDIS = (0x440154, 0x472D7B, 0x3B528B, 0x2C728E, 0x21918C, 0x28AE80, 0x5EC962, 0xADDC30, 0xFDE725)
_YELLOW_RED = (0x800026, 0xBD0026, 0xE31A1C, 0xFC4E2A, 0xFD8D3C, 0xFEB24C, 0xFED976)
_RED_BLUE = (
    0x053061,
    0x2166AC,
    0x4393C3,
    0x92C5DE,
    0xD1E5F0,
    0xFFFFFF,
    0xFDDBC7,
    0xF4A582,
    0xD6604D,
    0xB2182B,
    0x67001F,
)


def sequential(t: float) -> Colour:
    """Viridis (van der Walt and Smith 2015), dark to light; t from 0 to 1."""
    return _along(_VIRIDIS, t)


def opposite(t: float) -> Colour:
    """ColorBrewer's YlOrRd from dark to light, for keys after the query; t from 0 to 1."""
    return _along(_YELLOW_RED, t)


def diverging(t: float) -> Colour:
    """ColorBrewer's RdBu, blue below and red above; t from -1 to 1, white at 0."""
    return _along(_RED_BLUE, (t + 1) / 2)


class BucketKey(NamedTuple):
    """What a picture's legend says about a bucket: its colour, and the offsets of the window that it holds, by distance
    from the query."""

    colour: Colour
    nearest: int
    farthest: int


def bucket_keys(window: Window) -> Dict[int, BucketKey]:
    """The buckets that the window shows, by number."""
    assert window.buckets is not None
    shown = ~window.masked
    pairs = np.unique(np.stack([window.buckets[shown], window.offsets[shown]]), axis=1)
    ranges: Dict[int, Tuple[int, int]] = {}
    for bucket in np.unique(pairs[0]).tolist():
        offsets = pairs[1][pairs[0] == bucket]
        distances = np.abs(offsets)
        ranges[bucket] = int(offsets[distances.argmin()]), int(offsets[distances.argmax()])
    # Each side's buckets share its scale by rank. Bucket numbers grow with the distance on both sides.
    after = [bucket for bucket, (_, farthest) in ranges.items() if farthest < 0]
    before = [bucket for bucket in ranges if bucket not in after]
    keys = {}
    for buckets, scale in ((after, opposite), (before, sequential)):
        for rank, bucket in enumerate(buckets):
            place = rank / (len(buckets) - 1) if len(buckets) > 1 else 0.0
            keys[bucket] = BucketKey(scale(place), *ranges[bucket])
    return dict(sorted(keys.items()))


def largest_value(window: Window) -> float:
    """The largest absolute value that the window shows; 1 if all are 0."""
    assert window.values is not None
    shown = np.abs(window.values[~window.masked].astype(np.float64))
    return float(shown.max(initial=0.0)) or 1.0


def _along(stops: Sequence[int], t: float) -> Colour:
    """Between the stops, which are close enough together to mix linearly."""
    place = min(max(t, 0.0), 1.0) * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    rest = place - low
    mixed = (
        _round((stops[low] >> shift & 0xFF) + ((stops[low + 1] >> shift & 0xFF) - (stops[low] >> shift & 0xFF)) * rest)
        for shift in (16, 8, 0)
    )
    return Colour(*mixed)


def _round(value: float) -> int:
    """Half away from zero; the value is not negative."""
    return math.floor(value + 0.5)
