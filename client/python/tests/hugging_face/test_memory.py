"""Nothing of [queries, keys] is made in a forward pass of an attached model."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import attnd
import attnd.transformers

from .libraries import torch
from .models import SIZES, make, padded

TorchDispatchMode: Any = importlib.import_module("torch.utils._python_dispatch").TorchDispatchMode

TOKENS = 1024
# Even of one head, of one sequence, and of bytes.
SQUARE = TOKENS * TOKENS


class Largest(TorchDispatchMode):
    """Remembers the memory, in bytes, of the largest tensor that was made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.by = ""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, torch.Tensor) and each.untyped_storage().nbytes() > self.bytes:
                self.bytes = each.untyped_storage().nbytes()
                self.by = f"{function} {list(each.shape)}"
        return result


def largest(model: Any, inputs: dict[str, Any]) -> Largest:
    with torch.no_grad(), Largest() as mode:
        model.encoder(**inputs)
    return mode


@pytest.mark.parametrize("padding", ["none", "left", "holes"])
@pytest.mark.parametrize("family", ["T5", "umT5", "Switch", "Pop2Piano", "T5 with decoder"])
def test_nothing_quadratic(client: attnd.Client, family: str, padding: str) -> None:
    model = make(family)
    inputs = padded(2, TOKENS, padding)
    before = largest(model, inputs)
    assert before.bytes >= SQUARE * SIZES["num_heads"], before.by
    with attnd.transformers.attach(model, client, min_length=0):
        found = largest(model, inputs)
    # The widest is the feed-forward's input, of all tokens at once.
    assert found.bytes <= 2 * TOKENS * max(SIZES["d_ff"], SIZES["d_model"]) * 4 < SQUARE, found.by
