"""Checks of plain arguments: numbers, names and choices."""

from __future__ import annotations

import operator
from typing import Any, Dict

from attnd.errors import InvalidArgument


def one_of(name: str, choices: Dict[Any, Any], value: Any) -> Any:
    try:
        return choices[value]
    except (KeyError, TypeError):
        expected = " or ".join("None" if choice is None else f'"{choice}"' for choice in choices)
        raise InvalidArgument.of(name, expected, repr(value)[:80]) from None


def integer(name: str, value: Any, lowest: int = 0, highest: int = 2**63 - 1) -> int:
    """Checks an argument that must be a whole number in a range."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgument.of(name, "a whole number", repr(value)[:80]) from None
    if not lowest <= number <= highest:
        expected = f"at least {lowest}" if highest >= 2**63 - 1 and number < lowest else f"{lowest} to {highest}"
        raise InvalidArgument.of(name, expected, str(number)[:80])
    return number


def text(name: str, value: Any, expected: str) -> str:
    """Checks an argument that must be a name; None becomes the empty name."""
    if value is None:
        return ""
    if not isinstance(value, str) or not _is_unicode(value):
        raise InvalidArgument.of(name, expected, repr(value)[:80])
    return value


def model_name(value: Any, name: str = "model") -> str:
    """Checks an argument that must name a model."""
    if not isinstance(value, str) or not value or not _is_unicode(value):
        got = "an empty name" if value == "" else repr(value)[:80]
        raise InvalidArgument.of(name, "the name of a loaded model", got)
    return value


def _is_unicode(value: str) -> bool:
    """Whether a string can be encoded as UTF-8, which lone surrogates cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
