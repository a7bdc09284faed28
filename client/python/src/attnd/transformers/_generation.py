"""Gives `generate` its cache."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Dict, List

from transformers import GenerationMixin
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from attnd.transformers._decoder_cache import SessionCache
from attnd.transformers._refused import Refused
from attnd.transformers._undo import Method

if TYPE_CHECKING:
    from attnd.transformers._decoders import Decoder
    from attnd.transformers._handle import Handle

_log = logging.getLogger("attnd.transformers")

_ACCEPTED = "none, or an EncoderDecoderCache of two DynamicCaches"
# The least room of an assistant model's cache, which grows with each call of generate(), whose length covers only that
# call.
_ASSISTANT_TOKENS = 1024


class PrepareCache(Method):
    """Replaces `_prepare_cache_for_generation` of a model with an attached decoder."""

    def __init__(self, model: Any, decoder: Decoder, handle: Handle) -> None:
        super().__init__(model, "_prepare_cache_for_generation")
        self._decoder = decoder
        self._handle = handle

    def __call__(
        self,
        generation_config: Any,
        model_kwargs: Dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> Any:
        name = _name(model_kwargs)
        given = model_kwargs.get(name)
        # The cached tokens of a given cache are added to this below: the length may not include them.
        room = int(max_cache_length) + 1
        # Such caches may be passed to further calls.
        is_assistant = bool(getattr(generation_config, "is_assistant", False))
        grows = is_assistant or bool(generation_config.return_dict_in_generate)
        implementation = generation_config.cache_implementation
        if given is not None:
            model_kwargs[name] = self._of_users(given, room, grows)
        elif implementation not in (None, "dynamic") and generation_config.use_cache is not False:
            raise Refused.of("cache_implementation", 'None or "dynamic"', repr(implementation))
        result = self.original(generation_config, model_kwargs, generation_mode, batch_size, max_cache_length)
        if given is None:
            name = _name(model_kwargs)
            made = model_kwargs.get(name)
            if made is not None:  # None: generate without a cache, as without attnd
                if not _is_plain(made):
                    raise Refused.of("cache_implementation", _ACCEPTED, _described(made))
                if is_assistant:
                    room = max(room, _ASSISTANT_TOKENS)
                model_kwargs[name] = SessionCache(self._handle, self._decoder, room, grows)
        return result

    def _of_users(self, given: Any, room: int, grows: bool) -> Any:
        if isinstance(given, SessionCache):
            given.check_is_of(self._handle, self._decoder)
            given.self_store.grow(given.self_store.length + room)
            return given
        if not _is_plain(given):
            raise Refused.of("cache", _ACCEPTED, _described(given))
        _log.warning(
            "the cache that was given to generate() is copied to one of attnd's, and not updated: the result's "
            "past_key_values (cache) has the new one"
        )
        return converted(given, self._handle, self._decoder, given.get_seq_length() + room, grows)


def prepared(model: Any, decoder: Decoder, handle: Handle) -> List[Method]:
    """The replaced methods of all parts of a model that generate with this decoder."""
    return [
        PrepareCache(part, decoder, handle)
        for part in model.modules()
        if isinstance(part, GenerationMixin)
        and part.config.is_encoder_decoder
        and part is not decoder.stack
        and any(one is decoder.stack for one in part.modules())
    ]


def converted(given: Any, handle: Handle, decoder: Decoder, max_tokens: int, grows: bool) -> SessionCache:
    """Makes a SessionCache with the keys and values of one of transformers' caches, which is not changed."""
    cache = SessionCache(handle, decoder, max_tokens, grows)
    for ours, theirs in zip(cache.self_store.layers, given.self_attention_cache.layers):
        if theirs.get_seq_length() > 0:
            ours.update(theirs.keys, theirs.values)
    for index, theirs in enumerate(given.cross_attention_cache.layers):
        if theirs.get_seq_length() > 0:
            cache.cross_store.take(index, theirs.keys, theirs.values)
            cache.is_updated[index] = True
    return cache


def _name(model_kwargs: Dict[str, Any]) -> str:
    """The name of the cache's argument: until transformers 5.23 it is "past_key_values"."""
    return "cache" if model_kwargs.get("cache") is not None else "past_key_values"


def _is_plain(cache: Any) -> bool:
    return isinstance(cache, EncoderDecoderCache) and all(
        type(one) is DynamicCache and not one.offloading and all(type(layer) is DynamicLayer for layer in one.layers)
        for one in (cache.self_attention_cache, cache.cross_attention_cache)
    )


def _described(cache: Any) -> str:
    if isinstance(cache, EncoderDecoderCache):
        parts = (cache.self_attention_cache, cache.cross_attention_cache)
        return f"an EncoderDecoderCache of {' and '.join(type(one).__name__ for one in parts)}"
    return f"a {type(cache).__name__}"
