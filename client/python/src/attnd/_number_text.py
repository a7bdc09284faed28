"""Formats numbers as the same text in Python and in C++ (src/bias/number_text.cc)."""

from __future__ import annotations

from typing import Any

import numpy as np


def shortest(value: Any) -> str:
    """The fewest digits that identify the float32, as a JSON number. -0 is 0."""
    if value == 0:
        return "0"
    text = np.format_float_scientific(np.float32(value), unique=True, trim="-")
    sign = "-" if text.startswith("-") else ""
    mantissa, _, power = text[len(sign) :].partition("e")
    digits = mantissa.replace(".", "")
    exponent = int(power)
    if exponent < -4 or exponent >= 16:
        point = "." if len(digits) > 1 else ""
        return f"{sign}{digits[:1]}{point}{digits[1:]}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    if exponent >= len(digits) - 1:
        return f"{sign}{digits}{'0' * (exponent - len(digits) + 1)}"
    return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"


def rounded(value: float, digits: int) -> str:
    """`value` with `digits` significant digits, as printf's %g formats it. -0 is 0."""
    return f"{value or 0.0:.{digits}g}"
