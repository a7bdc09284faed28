"""Excludes functions from torch.compile."""

from __future__ import annotations

import inspect
from typing import Any, Callable, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])

_REASON = (
    "attnd computes the attention in another process, so torch.compile(fullgraph=True) cannot hold it: use "
    "fullgraph=False, or attnd.transformers.detach(model) first"
)


def not_compiled(function: F) -> F:
    """Makes torch.compile end its graph before the function and begin another one after it."""
    if "reason" in inspect.signature(torch.compiler.disable).parameters:
        return torch.compiler.disable(function, reason=_REASON)  # type: ignore[no-any-return]
    return torch.compiler.disable(function)  # type: ignore[no-any-return]
