"""The cache that `generate` uses: its keys and values are in sessions of an attnd server."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, List

from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from attnd.transformers import _closing
from attnd.transformers._cross_store import CrossStore
from attnd.transformers._refused import Refused
from attnd.transformers._self_store import SelfStore, not_attached

if TYPE_CHECKING:
    from attnd import Session
    from attnd.transformers._decoders import Decoder
    from attnd.transformers._handle import Handle


class SessionCache(EncoderDecoderCache):  # type: ignore[misc]
    """A cache of an attached model: for one batch, used by one thread at a time.

    Its sessions are closed with the last reference to the cache, by :meth:`close`, or when the model is detached.

    Args:
        handle: the model's.
        decoder: the model's.
        max_tokens: the most tokens that a row may have in a session.
        grows: whether the cache may have to grow beyond that, for which the client keeps a copy of keys and values.
    """

    def __init__(self, handle: Handle, decoder: Decoder, max_tokens: int, grows: bool = False) -> None:
        sessions: List[Session] = []
        self.handle = handle
        self.decoder = decoder
        self.self_store = SelfStore(handle, decoder, sessions, max_tokens, grows)
        self.cross_store = CrossStore(handle, decoder, sessions)
        super().__init__(_SelfCache(self.self_store), _CrossCache(self.cross_store, len(decoder.cross_layers)))
        _closing.start()
        weakref.finalize(self, _closing.close_later, sessions).atexit = False
        self.sessions = sessions
        handle.note_cache(self)

    def check_is_of(self, handle: Handle, decoder: Decoder) -> None:
        """Raises Refused if the cache was made for another model, or before the model was attached again."""
        if self.handle is not handle or self.decoder is not decoder:
            raise Refused.of("cache", "one that was made for this model, as it is attached now", "another one's")

    def close(self) -> None:
        """Closes the sessions and empties the cache."""
        self.reset()

    def reset(self) -> None:
        self.self_store.close()
        self.cross_store.close()
        for layer in self.self_store.layers:
            layer.keys = layer.values = None
            layer.is_initialized = False
        self.is_updated.clear()

    def __repr__(self) -> str:
        where = "in a session" if self.self_store.remote else "here"
        return f"<attnd SessionCache: {self.self_store.length} tokens a row {where}, {len(self.sessions)} sessions>"


class _Fixed(DynamicCache):  # type: ignore[misc]
    """A DynamicCache with a fixed list of layers."""

    def __init__(self, layers: List[Any]) -> None:
        super().__init__()
        self.layers = layers
        self.layer_class_to_replicate = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        raise _fixed_rows("batch_repeat_interleave")

    def batch_select_indices(self, indices: Any) -> None:
        raise _fixed_rows("batch_select_indices")


class _SelfCache(_Fixed):
    def __init__(self, store: SelfStore) -> None:
        super().__init__(store.layers)
        self._store = store

    def reorder_cache(self, beam_idx: Any) -> None:
        if self._store.remote:
            self._store.reorder(beam_idx.tolist())
        else:
            super().reorder_cache(beam_idx)
            self._store.note_moved()

    def crop(self, tokens: int) -> None:
        """Keeps the first `tokens`; if negative, removes that many from the end. Newer versions pass only negatives."""
        if self._store.remote:
            count = int(tokens)  # a tensor in some versions
            self._store.cut(count if count > 0 else self._store.length + count)
        else:
            super().crop(tokens)


class _CrossLayer(DynamicLayer):  # type: ignore[misc]
    """A layer without tensors: its keys and values are in the session."""

    def __init__(self, store: CrossStore, index: int) -> None:
        self._store = store
        self._index = index
        super().__init__()

    @property
    def keys(self) -> Any:
        raise not_attached()

    @keys.setter
    def keys(self, value: Any) -> None:
        pass

    values = keys

    def update(self, *arguments: Any, **others: Any) -> Any:
        raise not_attached()

    def get_seq_length(self) -> int:
        return self._store.length(self._index)


class _CrossCache(_Fixed):
    def __init__(self, store: CrossStore, layers: int) -> None:
        super().__init__([_CrossLayer(store, i) for i in range(layers)])
        self._store = store

    def reorder_cache(self, beam_idx: Any) -> None:
        self._store.reorder(beam_idx.tolist())

    def crop(self, tokens: int) -> None:
        del tokens


def _fixed_rows(method: str) -> Refused:
    return Refused.of("cache", "the rows that it began with: attnd's cache changes none", f"{method}()")
