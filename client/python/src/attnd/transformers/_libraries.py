"""Whether torch and transformers are there, and new enough."""

from __future__ import annotations

import importlib
import re
from typing import Any, Tuple

# The first that asks attention functions for T5's family, and its masks with them.
OLDEST_TRANSFORMERS = (5, 15)
_HINT = 'pip install "attnd[transformers]"'


def check() -> None:
    """Raises ImportError with what is missing."""
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
