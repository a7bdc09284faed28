"""Drawing functions shared by pictures of one bias and comparisons of several."""

from __future__ import annotations

import math


def escaped(text: str) -> str:
    """Escapes text for SVG elements and attributes."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def minus(text: str) -> str:
    """Replaces each hyphen by the minus sign, which is as wide as a plus."""
    return text.replace("-", "\u2212")


def round_step(span: float, most: int) -> float:
    """The step between ticks of an axis: 1, 2 or 5 times a power of ten, so that `span` has at most `most` steps.

    `span` is above 0, `most` 4 or 5.
    """
    power = 10.0 ** math.floor(math.log10(span))
    for factor in (0.2, 0.5, 1.0, 2.0):
        if span / (power * factor) <= most:
            return power * factor
    return power * 5
