"""What pictures of a bias and comparisons of several share as they are drawn."""

from __future__ import annotations

import math


def escaped(text: str) -> str:
    """Text as SVG has it, in elements and attributes."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def minus(text: str) -> str:
    """With the sign that is as wide as a plus."""
    return text.replace("-", "\u2212")


def round_step(span: float, most: int) -> float:
    """A round number for the ticks of an axis: 1, 2 or 5 times a power of ten, of which `span` has at most `most`.

    `span` is above 0, `most` 4 or 5.
    """
    power = 10.0 ** math.floor(math.log10(span))
    for factor in (0.2, 0.5, 1.0, 2.0):
        if span / (power * factor) <= most:
            return power * factor
    return power * 5
