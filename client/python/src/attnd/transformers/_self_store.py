"""Keeps the keys and values of a decoder's self-attention: first locally, as transformers does, later in a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from transformers.cache_utils import DynamicLayer

from attnd import SelfLayer
from attnd.errors import NotFound, OutOfRange
from attnd.transformers._closing import close_one
from attnd.transformers._decoder_masks import UNSEEN, left_padding, visible_and_causal
from attnd.transformers._pieces import pieces, scale_of
from attnd.transformers._quick_step import QuickSteps
from attnd.transformers._refused import Refused
from attnd.v1 import session_pb2

if TYPE_CHECKING:
    from attnd import Session
    from attnd.transformers._decoders import AttentionLayer, Decoder
    from attnd.transformers._handle import Handle
    from attnd.transformers._tables import Contents, Place

# How often an opening looks up its tables again: the server may restart, or models may be replaced, several times in a
# row.
_MAX_MOVES = 4
# If more tokens than this, or several pieces, are to be appended, pending changes of rows are made in a separate step.
_MOST_APPENDED = 32
# The limit of the copy of a cache that may grow, if the handle has no replay_bytes.
_GROWING_BYTES = 1 << 30


class KeptLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer of transformers, used while the store is local."""

    def __init__(self, store: SelfStore, index: int) -> None:
        super().__init__()
        self._store = store
        self._index = index

    def update(self, key_states: Any, value_states: Any, *arguments: Any, **others: Any) -> Any:
        if self._store.remote:
            raise not_attached()
        return super().update(key_states, value_states, *arguments, **others)

    def get_seq_length(self) -> int:
        return self._store.lengths[self._index] if self._store.remote else int(super().get_seq_length())


class SelfStore:
    """The self-attention of one cache, used by one thread at a time.

    The store begins locally, with transformers' own cache layers. At the beginning of the forward pass in which all
    rows together reach `handle.min_cached_tokens` (half of that if rows have changed places), everything moves to a
    session, and stays there. Rows with masked tokens after visible ones stay local, because a session can only mask
    tokens on the left.

    Args:
        handle: the model's.
        decoder: the model's.
        sessions: the list of open sessions, which are closed with the cache.
        max_tokens: the most tokens that a row may have in a session.
        grows: whether :meth:`grow` must work once the store is remote.
    """

    def __init__(self, handle: Handle, decoder: Decoder, sessions: List[Session], max_tokens: int, grows: bool) -> None:
        self.remote = False
        self.max_tokens = max_tokens
        self.lengths = [0] * len(decoder.self_layers)
        self.layers = [KeptLayer(self, i) for i in range(len(decoder.self_layers))]
        self._handle = handle
        self._decoder = decoder
        self._sessions = sessions
        self._replay_bytes = handle.replay_bytes or (_GROWING_BYTES if grows else 0)
        self._session: Optional[Session] = None
        self._quick: Optional[QuickSteps] = None
        self._contents: Optional[Contents] = None
        self._place: Optional[Place] = None
        self._order: Optional[List[int]] = None
        self._cut: Optional[int] = None
        self._key_starts: Tuple[int, ...] = ()  # the session's
        self._said_starts: Optional[Tuple[int, ...]] = None
        self._seen = UNSEEN
        self._moved = False  # whether rows have changed places

    def begin(self, rows: int, tokens: int, mask: Any) -> None:
        """Begins a forward pass of [rows, tokens].

        Raises:
            Refused: the store is remote, and the session does not support the mask, or the bias table was changed.
            OutOfRange: rows would have more tokens than the session has room for.
        """
        length = self.length + tokens
        if self.remote:
            self._check_room(length)
            self._look(mask, rows, length)
            return
        # Reordering beams doubles the local cost.
        least = self._handle.min_cached_tokens / (2 if self._moved else 1)
        if length > self.max_tokens or rows * length < least:
            return
        try:
            starts = left_padding(visible_and_causal(mask, rows, length))
        except Refused:
            return
        if starts is not None:
            self._move(starts)
            self._look(mask, rows, length)

    def attend(self, layer: AttentionLayer, query: Any, key: Any, value: Any) -> Any:
        """Appends to a layer of a remote store, and attends. All tensors are [rows, tokens, heads, head_dim]."""
        session = self._session or self._open(query.shape[0], key.dtype)
        parts = list(pieces(key, value))
        if len(parts) > 1 or key.shape[1] > _MOST_APPENDED:
            self._rearrange(session)
        for part in parts[:-1]:
            self._append(session, layer.index, *part)
        output = self._attend_quickly(layer, query, *parts[-1])
        if output is None:
            output = self._attend(session, layer, query, *parts[-1])
        self._order = self._cut = self._said_starts = None
        self.lengths[layer.index] += parts[-1][0].shape[1]
        return output

    def _attend_quickly(self, layer: AttentionLayer, query: Any, key: Any, value: Any) -> Optional[Any]:
        if self._quick is None or self._cut is not None or self._said_starts is not None:
            return None
        said = session_pb2.SessionStep(expected_lengths=(self.lengths[layer.index],), reorder=self._order)
        return self._quick.attend(layer.index, (query, key, value), said.SerializeToString())

    def _attend(self, session: Session, layer: AttentionLayer, query: Any, key: Any, value: Any) -> Any:
        return session.attend(
            layer.index,
            query,
            key,
            value,
            **self._pending(session.rows),
            expected_lengths=self.lengths[layer.index],
            layout="bshd",
            timeout=self._handle.timeout,
        )

    @property
    def length(self) -> int:
        """Number of tokens of a row in the first layer."""
        return self.layers[0].get_seq_length()

    def reorder(self, order: List[int]) -> None:
        """Row r of a remote store becomes what row order[r] was."""
        self._key_starts = tuple(self._key_starts[row] for row in order) if self._key_starts else ()
        self._order = order if self._order is None else [self._order[row] for row in order]

    def note_moved(self) -> None:
        """Records that rows of a local store have changed places."""
        self._moved = True

    def grow(self, max_tokens: int) -> None:
        """Makes room for `max_tokens` in each row. A session's contents move to a larger session.

        Raises:
            OutOfRange: the session has less room, and there is no copy of its contents.
        """
        if max_tokens <= self.max_tokens:
            return
        if self._session is not None:
            if not self._session.replayable:
                raise self._no_room(max_tokens)
            self._session._grow(max_tokens)
        self.max_tokens = max_tokens

    def cut(self, length: int) -> None:
        """Rows of a remote store keep their first `length` tokens."""
        if length < max(self.lengths):
            self._cut = length if self._cut is None else min(self._cut, length)
            self.lengths = [min(length, one) for one in self.lengths]
            self._seen = UNSEEN

    def close(self) -> None:
        """Frees everything. The store is then local and empty."""
        session, self._session, self._quick = self._session, None, None
        close_one(self._sessions, session)
        self.remote = False
        self.lengths = [0] * len(self.lengths)
        self._order = self._cut = self._said_starts = self._contents = None
        self._key_starts, self._seen = (), UNSEEN

    def _check_room(self, length: int) -> None:
        if length > self.max_tokens:
            raise self._no_room(length)
        if self._contents is not None and self._contents != self._handle.contents_of(self._decoder.path(0)):
            expected = "the bias that the cache began with"
            raise Refused.of("relative_attention_bias", expected, "weights that were changed since")

    def _no_room(self, length: int) -> OutOfRange:
        expected = f"at most {self.max_tokens} tokens, as the cache was made for"
        return OutOfRange.of("max_tokens", expected, f"{length} tokens")

    def _look(self, mask: Any, rows: int, keys: int) -> None:
        if mask is self._seen:
            return
        starts = left_padding(visible_and_causal(mask, rows, keys))
        if starts is None:
            expected = "padding on the left alone, since keys and values are in a session"
            raise Refused.of("decoder_attention_mask", expected, "masked tokens behind others")
        self._seen = mask
        if starts != self._key_starts:
            self._key_starts = starts
            self._said_starts = starts or (0,) * rows

    def _move(self, starts: Tuple[int, ...]) -> None:
        """Moves the contents of the local layers to a session."""
        kept = [(layer.keys, layer.values) for layer in self.layers]
        lengths = [layer.get_seq_length() for layer in self.layers]
        self.remote = True
        if not any(lengths):
            return
        try:
            session = self._open(kept[0][0].shape[0], kept[0][0].dtype)
            if starts:
                self._key_starts = starts
                session.step(0, key_starts=starts, timeout=self._handle.timeout)
            for index, (keys, values) in enumerate(kept):
                for part in pieces(keys.transpose(1, 2), values.transpose(1, 2)):
                    self._append(session, index, *part)
        except BaseException:
            self.close()
            raise
        for layer in self.layers:
            layer.keys = layer.values = None
            layer.is_initialized = False

    def _append(self, session: Session, index: int, key: Any, value: Any) -> None:
        session.append(index, key, value, layout="bshd", timeout=self._handle.timeout)
        self.lengths[index] += key.shape[1]

    def _pending(self, rows: int) -> Dict[str, Any]:
        """The pending changes of rows, as arguments of the next step, which makes them before it appends."""
        return {
            "reorder": self._order,
            "truncate": None if self._cut is None else [self._cut] * rows,
            "key_starts": self._said_starts,
        }

    def _rearrange(self, session: Session) -> None:
        """Makes the pending changes in a separate step."""
        if self._order is None and self._cut is None and self._said_starts is None:
            return
        session.step(0, **self._pending(session.rows), timeout=self._handle.timeout)
        self._order = self._cut = self._said_starts = None

    def _open(self, rows: int, dtype: Any) -> Session:
        handle = self._handle
        for attempt in range(_MAX_MOVES):
            contents = handle.contents_of(self._decoder.path(0))
            place = handle.place(contents)
            try:
                session: Session = handle.client.session(
                    self._session_layers(place),
                    place.model,
                    rows=rows,
                    max_tokens=self.max_tokens,
                    dtype=str(dtype).rpartition(".")[2],
                    replay_bytes=self._replay_bytes,
                    replay_evicted=handle.recovers,
                    timeout=handle.timeout,
                )
            except NotFound:
                if attempt == _MAX_MOVES - 1:
                    raise
            else:
                if session.content_hash == place.content_hash:
                    self._contents, self._place, self._session = contents, place, session
                    self._sessions.append(session)
                    self._quick = QuickSteps(session, handle.timeout)
                    recovery = session._state.recovery
                    if recovery is not None:
                        recovery.restore_model = self._restore_model
                    return session
                session.close()
            handle.forget(contents, place)
        raise handle.replaced_too_often(place)

    def _restore_model(self, opening: Any) -> str:
        """Recovery.restore_model: uploads the tables again to a restarted server that has lost them."""
        handle, contents = self._handle, self._contents
        assert contents is not None
        assert self._place is not None
        handle.forget(contents, self._place)
        self._place = handle.place(contents)
        opening.model = self._place.model
        for message, layer in zip(opening.layers, self._session_layers(self._place)):
            message.table = layer.table
        return self._place.content_hash

    def _session_layers(self, place: Place) -> List[SelfLayer]:
        layers = []
        biased = -1
        for layer in self._decoder.self_layers:
            biased += bool(layer.module.has_relative_attention_bias)
            layers.append(SelfLayer(layer.heads, layer.head_dim, table=place.tables[biased], scale=scale_of(layer)))
        return layers


def not_attached() -> Refused:
    """The error if a layer that is not attached uses a SessionCache."""
    expected = "one of transformers' own, or the model that it was made for, attached"
    return Refused.of("cache", expected, "attnd's cache, whose keys and values are in a session")
