"""Colours of the pictures, the same as in src/bias/picture_colour.cc."""

from __future__ import annotations

import math
from typing import NamedTuple, Sequence


class Colour(NamedTuple):
    red: int
    green: int
    blue: int

    def hex(self) -> str:
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"

    def ink(self) -> Colour:
        """Black or white, whichever has more contrast to this colour. That contrast is at least 4.5 for any colour."""
        return BLACK if contrast(self, BLACK) >= contrast(self, WHITE) else WHITE


BLACK, WHITE = Colour(0, 0, 0), Colour(255, 255, 255)
NOT_A_NUMBER = Colour(64, 64, 64)


def contrast(a: Colour, b: Colour) -> float:
    """The contrast ratio of WCAG 2.2, 1 to 21."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


_VIRIDIS = (0x440154, 0x472D7B, 0x3B528B, 0x2C728E, 0x21918C, 0x28AE80, 0x5EC962, 0xADDC30, 0xFDE725)
_YELLOW_RED = (0x800026, 0xBD0026, 0xE31A1C, 0xFC4E2A, 0xFD8D3C, 0xFEB24C, 0xFED976)
_COOL_WARM = (
    0x3B4CC0,
    0x4D68D7,
    0x6282EA,
    0x779AF7,
    0x8DB0FE,
    0xA3C2FF,
    0xB8D0F9,
    0xCCD9EE,
    0xDDDDDD,
    0xECD3C5,
    0xF5C4AD,
    0xF7B194,
    0xF49A7B,
    0xEC7F63,
    0xDE604D,
    0xCB3E38,
    0xB40426,
)


def sequential(t: float) -> Colour:
    """Viridis (van der Walt and Smith 2015), dark to light; t from 0 to 1."""
    return _along(_VIRIDIS, t)


def opposite(t: float) -> Colour:
    """ColorBrewer's YlOrRd from dark to light, for keys after the query; t from 0 to 1."""
    return _along(_YELLOW_RED, t)


def diverging(t: float) -> Colour:
    """Moreland's cool-warm scale (2009), blue below and red above; t from -1 to 1, grey at 0."""
    return _along(_COOL_WARM, (t + 1) / 2)


def _luminance(c: Colour) -> float:
    """WCAG 2.2, "relative luminance"."""

    def linear(channel: int) -> float:
        part = channel / 255
        return float(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)

    return 0.2126 * linear(c.red) + 0.7152 * linear(c.green) + 0.0722 * linear(c.blue)


def _along(stops: Sequence[int], t: float) -> Colour:
    """Interpolates linearly between the stops, which are close enough together for that."""
    place = min(max(t, 0.0), 1.0) * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    rest = place - low
    mixed = (
        _round((stops[low] >> shift & 0xFF) + ((stops[low + 1] >> shift & 0xFF) - (stops[low] >> shift & 0xFF)) * rest)
        for shift in (16, 8, 0)
    )
    return Colour(*mixed)


def _round(value: float) -> int:
    """Rounds a value >= 0, halves up."""
    return math.floor(value + 0.5)
