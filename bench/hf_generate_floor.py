"""A T5 whose attention costs nothing: the floor under whatever computes attention elsewhere."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache


class _CountingLayer(DynamicLayer):
    """Counts tokens instead of keeping them, and has no rows to reorder."""

    _tokens = 0

    def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self._tokens += keys.shape[2]
        self.keys, self.values = keys, values
        return keys, values

    def get_seq_length(self) -> int:
        return self._tokens

    def reorder_cache(self, rows: Any) -> None:
        pass


def _cache(layers: int) -> EncoderDecoderCache:
    both = []
    for _ in range(2):
        cache = DynamicCache()
        cache.layers = [_CountingLayer() for _ in range(layers)]
        cache.layer_class_to_replicate = None
        both.append(cache)
    return EncoderDecoderCache(*both)


def cache_name(model: Any) -> str:
    """What generate() calls its cache: transformers 5.24 has renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


class Floor:
    """Takes the attention out of a model. What is left: projections (of a source once, not for each of its beams),
    feed-forward layers, logits, and what generate() does."""

    def __init__(self, model: Any) -> None:
        self.beams = 1
        self._cache_name = cache_name(model)
        self._layers = model.config.num_decoder_layers
        self._nothing = torch.zeros(())
        AttentionInterface.register("free", lambda module, query, *_, **__: (query.transpose(1, 2), None))
        AttentionMaskInterface.register("free", lambda *_, **__: None)
        model.set_attn_implementation("free")
        heads = model.config.num_heads
        for stack in (model.encoder, model.decoder):
            first = stack.block[0].layer[0].SelfAttention
            first.compute_bias = lambda queries, keys, **_: self._nothing.expand(1, heads, queries, keys)
        for block in model.decoder.block:
            for linear in (block.layer[1].EncDecAttention.k, block.layer[1].EncDecAttention.v):
                linear.forward = self._once_per_source(linear.forward)

    def options(self) -> dict[str, Any]:
        """What generate() needs."""
        return {self._cache_name: _cache(self._layers)}

    def _once_per_source(self, project: Any) -> Any:
        def forward(hidden: Any) -> Any:
            made = project(hidden[:: self.beams])
            return self._nothing.expand(*hidden.shape[:2], made.shape[2])

        return forward
