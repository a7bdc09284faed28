"""What a benchmark has measured so far, in a file that is whole at every moment."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any


class NotMeasured(Exception):
    """There is no measurement; says why."""


def not_measured(reason: object) -> str:
    """What a table shows in the place of a measurement."""
    return f"not measured ({reason})"


def figure(results: dict[str, Any], *keys: str) -> float:
    """One number of nested results. Raises NotMeasured where a measurement has an "error" in its place, or is missing."""
    found: Any = results
    for key in keys:
        found = found.get(key, {"error": "not run"})
        if isinstance(found, dict) and "error" in found:
            raise NotMeasured(found["error"])
    return float(found)


def write(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Replaces the file at once, so that a run that is killed leaves the last results complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)
