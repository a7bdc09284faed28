"""What a measured path is: a way to compute one case with some library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from pages import Span


@dataclasses.dataclass(frozen=True)
class Path:
    """`run()` does the timed work; `output(result)` gives it as float32 [batch, heads, queries, dim] for the check."""

    run: Callable[[], Any]
    output: Callable[[Any], np.ndarray]
    # Where K and V lie, as the library reads them.
    memory: tuple[Span, ...]
    with_bias: bool = True
    # The narrowest format in which logits, bias or probabilities are held.
    precision: str = "fp32"
    note: str = ""
    kept: Any = None  # what must live as long as the path
