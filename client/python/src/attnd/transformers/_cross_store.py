"""Keeps the keys and values of a decoder's cross attention in a session, once per source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import numpy as np

from attnd import CrossLayer
from attnd.errors import Aborted, Unavailable
from attnd.transformers._closing import close_one
from attnd.transformers._decoder_masks import UNSEEN, visible_to_all
from attnd.transformers._pieces import pieces, scale_of
from attnd.transformers._quick_step import QuickSteps
from attnd.transformers._refused import Refused
from attnd.transformers._sources import Sources, find_sources

if TYPE_CHECKING:
    from attnd import Session
    from attnd.transformers._decoders import AttentionLayer, Decoder
    from attnd.transformers._handle import Handle

# How often a layer's step is repeated on another session.
_MAX_LOSSES = 4
_GRACE_SECONDS = 30.0


class CrossStore:
    """The cross attention of one cache, used by one thread at a time.

    The first layer that attends opens the session. Each layer's keys and values are projected once, for one row of each
    source, and appended. If the session is lost and the handle recovers, another one is opened, and the keys and values
    are projected again from the encoder's output, which every forward pass gets.

    Args:
        handle: the model's.
        decoder: the model's.
        sessions: the list of open sessions, which are closed with the cache.
    """

    def __init__(self, handle: Handle, decoder: Decoder, sessions: List[Session]) -> None:
        self._handle = handle
        self._decoder = decoder
        self._sessions = sessions
        self._session: Optional[Session] = None
        self._quick: Optional[QuickSteps] = None
        self._sources: Optional[Sources] = None
        self._tokens = 0
        self._filled: List[bool] = [False] * len(decoder.cross_layers)
        self._given: Dict[int, Tuple[Any, Any]] = {}
        self._order: Optional[List[int]] = None
        self._visible: np.ndarray[Any, Any] = np.empty((0, 0), bool)  # of each source
        self._to_say = False  # whether the session does not have _visible yet
        self._seen = UNSEEN

    def take(self, layer: int, keys: Any, values: Any) -> None:
        """Uses keys and values of transformers' own cache, [rows, heads, tokens, head_dim], instead of projecting."""
        self._given[layer] = (keys.transpose(1, 2), values.transpose(1, 2))

    def length(self, layer: int) -> int:
        """Number of tokens of a source in a layer."""
        if layer in self._given:
            return int(self._given[layer][0].shape[1])
        return self._tokens if self._filled[layer] else 0

    def attend(self, layer: AttentionLayer, query: Any, states: Any, mask: Any) -> Any:
        """Computes a layer's attention.

        Args:
            layer: of the decoder.
            query: [rows, queries, heads, head_dim].
            states: the encoder's output, [rows, tokens, width].
            mask: the layer's argument.

        Returns:
            [rows, queries, heads, head_dim].

        Raises:
            Unavailable, Aborted: the session is lost, and the handle does not recover.
        """
        for _ in range(_MAX_LOSSES):
            try:
                return self._attend(layer, query, states, mask)
            except (Unavailable, Aborted):
                if not self._handle.recovers:
                    raise
                self._end_session()
        return self._attend(layer, query, states, mask)

    def reorder(self, order: List[int]) -> None:
        """Row r becomes what row order[r] was. Nothing changes if each row keeps its source, as beams do."""
        if self._sources is None:
            return
        of_rows = [self._sources.of_rows[row] for row in order]
        if of_rows != self._sources.of_rows:
            self._order = order if self._order is None else [self._order[row] for row in order]
            firsts = [of_rows.index(source) if source in of_rows else 0 for source in range(len(self._sources.firsts))]
            self._sources = Sources(of_rows, firsts)
            self._seen = UNSEEN

    def close(self) -> None:
        """Ends the session. The next layer that attends opens another one."""
        self._end_session()
        self._given.clear()
        self._sources, self._order, self._tokens = None, None, 0

    def _attend(self, layer: AttentionLayer, query: Any, states: Any, mask: Any) -> Any:
        rows = query.shape[0]
        keys = self._tokens or (self._given[layer.index][0] if self._given else states).shape[1]
        self._look(mask, rows, keys, states)
        if not self._filled[layer.index]:
            self._fill(layer, states)
        session = self._session
        assert session is not None
        if self._order is None and not self._to_say and self._quick is not None:
            output = self._quick.attend(layer.index, (query,))
            if output is not None:
                return output
        key_mask = self._visible if self._to_say else None
        reply = session.attend(
            layer.index, query, reorder=self._order, key_mask=key_mask, layout="bshd", timeout=self._handle.timeout
        )
        self._order, self._to_say = None, False
        return reply

    def _look(self, mask: Any, rows: int, keys: int, states: Any) -> None:
        """Finds the sources, at the first call, and the visible tokens of each."""
        if mask is self._seen and self._sources is not None:
            return
        visible = visible_to_all(mask, rows, keys)
        if visible is not None and not visible.any(axis=1).all():
            raise Refused.of("encoder_attention_mask", "a token of each source", "a source of which all is masked")
        if self._sources is None:
            self._sources = find_sources(self._compared(states), visible)
        sources = self._sources
        if len(sources.of_rows) != rows:
            raise Refused.of("cache", f"{len(sources.of_rows)} rows, as it began with", f"{rows} rows")
        of_sources = np.ones((len(sources.firsts), keys), bool) if visible is None else visible[sources.firsts]
        if visible is not None and not np.array_equal(visible, of_sources[sources.of_rows]):
            raise Refused.of("encoder_attention_mask", "the same for all rows of a source", "different ones")
        self._seen = mask
        if not np.array_equal(of_sources, self._visible):
            self._visible, self._to_say = of_sources, True

    def _compared(self, states: Any) -> Any:
        return self._given[min(self._given)][0] if self._given else states

    def _fill(self, layer: AttentionLayer, states: Any) -> None:
        sources = self._sources
        assert sources is not None
        given = self._given.get(layer.index)
        if given is not None:
            key, value = (sources.select(one) for one in given)
        else:
            states = sources.select(states)
            key, value = layer.key(states), layer.value(states)
        session = self._session or self._open(key, sources)
        for part in pieces(key, value):
            key_mask = self._visible if self._to_say else None
            session.append(layer.index, *part, key_mask=key_mask, layout="bshd", timeout=self._handle.timeout)
            self._to_say = False
        self._filled[layer.index] = True
        self._given.pop(layer.index, None)

    def _open(self, key: Any, sources: Sources) -> Session:
        layers = [
            CrossLayer(layer.heads, layer.head_dim, scale=scale_of(layer)) for layer in self._decoder.cross_layers
        ]
        session: Session = self._handle.client.session(
            layers,
            rows=len(sources.of_rows),
            sources=len(sources.firsts),
            max_source_tokens=key.shape[1],
            dtype=str(key.dtype).rpartition(".")[2],
            row_sources=sources.of_rows,
            grace=_GRACE_SECONDS if self._handle.recovers else None,
            timeout=self._handle.timeout,
        )
        self._tokens = int(key.shape[1])
        self._sessions.append(session)
        self._session = session
        self._quick = QuickSteps(session, self._handle.timeout)
        self._order = None  # row_sources includes the order
        self._to_say = not bool(self._visible.all())
        return session

    def _end_session(self) -> None:
        session, self._session, self._quick = self._session, None, None
        close_one(self._sessions, session)
        self._filled = [False] * len(self._filled)
