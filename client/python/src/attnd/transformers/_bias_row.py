"""Caches the bias of a decoder's newest token."""

from __future__ import annotations

from typing import Any, Optional

import torch

# Rows are computed for a multiple of this number of keys.
_GRAIN = 128


class BiasRow:
    """The bias row of one attention layer with a bias table.

    transformers computes the buckets of all keys again for each token. They depend only on the offset, so the row for
    fewer keys is the end of the row for more keys.

    Args:
        module: the attention layer.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._weight: Optional[Any] = None
        self._row: Optional[Any] = None  # [1, heads, 1, keys]

    def of(self, keys: int) -> Any:
        """[1, heads, 1, keys] with the current weights; None if the table is not a plain Embedding."""
        embedding = self._module.relative_attention_bias
        if type(embedding) is not torch.nn.Embedding:
            return None
        weight, row = embedding.weight.detach(), self._row
        known = self._weight
        if row is None or row.shape[3] < keys or not _same(weight, known):
            size = -(-keys // _GRAIN) * _GRAIN
            row = self._module.compute_bias(1, size, past_seen_tokens=size - 1).detach()
            self._row, self._weight = row, weight.clone()
        return row[..., row.shape[3] - keys :]


def _same(weight: Any, known: Any) -> bool:
    return bool(weight.dtype is known.dtype and weight.device == known.device and torch.equal(weight, known))
