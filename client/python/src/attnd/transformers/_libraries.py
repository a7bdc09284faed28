"""Checks that torch and transformers are installed and new enough."""

from __future__ import annotations

import importlib
import re
from typing import Any, Tuple

# The first version in which the T5 family uses registered attention and mask functions.
OLDEST_TRANSFORMERS = (5, 15)
_HINT = 'pip install "attnd[transformers]"'


def check() -> None:
    """Raises ImportError that says what is missing."""
    _import("torch")
    version = str(_import("transformers").__version__)
    if _numbers(version) < OLDEST_TRANSFORMERS:
        oldest = ".".join(map(str, OLDEST_TRANSFORMERS))
        raise ImportError(
            f"attnd.transformers needs transformers {oldest} or newer, got {version}: before that the T5 family"
            f" computes its attention by itself and asks no registered function ({_HINT})"
        )


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"attnd.transformers needs {name}, which cannot be imported: {error} ({_HINT})") from error


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
