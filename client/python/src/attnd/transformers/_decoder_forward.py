"""Replaces the forward of an attached decoder's attention layers, for calls with a SessionCache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List

import torch

from attnd.transformers._bias_row import BiasRow
from attnd.transformers._compiling import not_compiled
from attnd.transformers._decoder_cache import SessionCache
from attnd.transformers._refused import Refused
from attnd.transformers._undo import Method

if TYPE_CHECKING:
    from attnd.transformers._decoders import AttentionLayer, Decoder
    from attnd.transformers._handle import Handle


class _Forward(Method):
    """Replaces `forward` of one attention layer. Without a SessionCache it calls the layer's own."""

    def __init__(self, layer: AttentionLayer, decoder: Decoder, handle: Handle) -> None:
        super().__init__(layer.module, "forward")
        self._layer = layer
        self._decoder = decoder
        self._handle = handle

    @not_compiled
    def __call__(self, hidden_states: Any, *arguments: Any, **others: Any) -> Any:
        cache = others.get("cache")
        if cache is None:
            cache = others.get("past_key_values")  # before transformers 5.24
        if not isinstance(cache, SessionCache):
            return self.original(hidden_states, *arguments, **others)
        cache.check_is_of(self._handle, self._decoder)
        self._check(hidden_states, others)
        return self._attend(cache, hidden_states, others)

    def _attend(self, cache: SessionCache, hidden_states: Any, others: Dict[str, Any]) -> Any:
        raise NotImplementedError

    def _check(self, hidden_states: Any, others: Dict[str, Any]) -> None:
        module = self.module
        if hidden_states.device.type != "cpu":
            raise Refused.of("model", "a model in the CPU's memory", f"one on {hidden_states.device}")
        if module.training and module.dropout > 0:
            got = f"training mode, with a dropout of {module.dropout:g}"
            raise Refused.of("model", "no dropout: model.eval()", got)
        if hidden_states.requires_grad and torch.is_grad_enabled():
            expected = "no gradients: run the model in torch.inference_mode() or torch.no_grad()"
            raise Refused.of("model", expected, "a forward pass that records gradients")
        # The config is read only once per pass, because that takes as long as everything else here.
        if others.get("output_attentions") or (self._layer.index == 0 and module.config.output_attentions):
            expected = "False, since the weights of the attention are never made"
            raise Refused.of("output_attentions", expected, "True")


class SelfForward(_Forward):
    """The forward of a self-attention layer. The first layer's call begins the pass."""

    def __init__(self, layer: AttentionLayer, decoder: Decoder, handle: Handle) -> None:
        super().__init__(layer, decoder, handle)
        # umT5's layers always compute their own bias.
        has_row = layer.gives_bias and layer.module.has_relative_attention_bias
        self._bias_row = BiasRow(layer.module) if has_row else None

    def _attend(self, cache: SessionCache, hidden_states: Any, others: Dict[str, Any]) -> Any:
        layer, store = self._layer, cache.self_store
        if layer.index == 0:
            rows, tokens = hidden_states.shape[:2]
            store.begin(rows, tokens, others.get(layer.mask))
        if not store.remote:
            if self._bias_row is not None and others.get("position_bias") is None and hidden_states.shape[1] == 1:
                others["position_bias"] = self._bias_row.of(store.length + 1)
            return self.original(hidden_states, **others)
        query, key, value = layer.query(hidden_states), layer.key(hidden_states), layer.value(hidden_states)
        return layer.result(layer.output(store.attend(layer, query, key, value)))


class CrossForward(_Forward):
    """The forward of a cross-attention layer."""

    def _attend(self, cache: SessionCache, hidden_states: Any, others: Dict[str, Any]) -> Any:
        layer = self._layer
        states = others[layer.source]
        attended = cache.cross_store.attend(layer, layer.query(hidden_states), states, others.get(layer.mask))
        cache.is_updated[layer.index] = True
        return layer.result(layer.output(attended))


def forwards(decoder: Decoder, handle: Handle) -> List[Method]:
    """The replaced forwards of all layers of a decoder."""
    made: List[Method] = [SelfForward(layer, decoder, handle) for layer in decoder.self_layers]
    made += [CrossForward(layer, decoder, handle) for layer in decoder.cross_layers]
    return made
