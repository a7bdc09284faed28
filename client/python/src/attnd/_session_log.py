"""The client's copy of a session's keys and values, from which another session can be filled. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from attnd import _dtypes
from attnd._rounding import rounded
from attnd.v1 import session_pb2

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

# Tokens per chunk. Rows that were copied from one row share its chunks, except for the last one once they append.
CHUNK = 32

_SELF = 1  # attnd.v1.SessionLayerKind


class Piece(NamedTuple):
    """Tokens to append.

    Attributes:
        before: the tokens that each row or source has before this piece.
        lengths: the true number of tokens of this piece for each row or source.
        k, v: [rows or sources, kv_heads, tokens, elements], of the session's dtype.
    """

    before: List[int]
    lengths: List[int]
    k: Array
    v: Array


class _Full(Exception):
    """The log would exceed its limit."""


class _Meter:
    """Counts bytes against a limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def add(self, size: int) -> None:
        """Adds `size`. Raises _Full and adds nothing if that exceeds the limit."""
        if self.used + size > self.most:
            raise _Full
        self.used += size


class _Chunk:
    """Keys and values of CHUNK tokens, side by side: [kv_heads, CHUNK, head_dim + value_head_dim]. Rows that share a
    chunk may use different numbers of its tokens; new tokens are written only from `used` on, where no row reads."""

    __slots__ = ("_meter", "array", "used")

    def __init__(self, heads: int, width: int, dtype: np.dtype[Any], meter: _Meter) -> None:
        self.used = 0
        self._meter: Optional[_Meter] = None
        meter.add(heads * CHUNK * width * dtype.itemsize)
        self._meter = meter
        self.array = np.empty((heads, CHUNK, width), dtype)

    def __del__(self) -> None:
        if self._meter is not None and hasattr(self, "array"):
            self._meter.used -= self.array.nbytes


class _Tokens:
    """The tokens of one row or source in one layer."""

    __slots__ = ("chunks", "length")

    def __init__(self, chunks: Sequence[_Chunk] = (), length: int = 0) -> None:
        self.chunks = list(chunks)
        self.length = length

    def cut(self, length: int) -> None:
        if length < self.length:
            self.length = length
            del self.chunks[-(-length // CHUNK) :]

    def append(self, array: Array, meter: _Meter) -> None:
        """`array`: [kv_heads, tokens, head_dim + value_head_dim]."""
        heads, tokens, width = array.shape
        done = 0
        while done < tokens:
            place = self.length % CHUNK
            if place == 0:
                self.chunks.append(_Chunk(heads, width, array.dtype, meter))
            elif self.chunks[-1].used != place:  # another row has appended here
                chunk = _Chunk(heads, width, array.dtype, meter)
                chunk.array[:, :place] = self.chunks[-1].array[:, :place]
                self.chunks[-1] = chunk
            count = min(CHUNK - place, tokens - done)
            chunk = self.chunks[-1]
            chunk.array[:, place : place + count] = array[:, done : done + count]
            chunk.used = place + count
            self.length += count
            done += count

    def read(self, begin: int, end: int, k: Array, v: Array) -> None:
        """Copies tokens `begin` to `end` to the beginning of `k` and `v`."""
        dim = k.shape[2]
        at = begin
        while at < end:
            place = at % CHUNK
            count = min(CHUNK - place, end - at)
            tokens = self.chunks[at // CHUNK].array[:, place : place + count]
            k[:, at - begin : at - begin + count] = tokens[..., :dim]
            v[:, at - begin : at - begin + count] = tokens[..., dim:]
            at += count


class SessionLog:
    """A copy of one session's state, updated with each step that succeeded. Not thread-safe.

    Attributes:
        code: the element type of the kept keys and values.
        kept: False once the log has exceeded its limit or was given up, and is empty.
    """

    def __init__(self, opening: session_pb2.SessionOpen, most_bytes: int) -> None:
        self.kept = True
        self._opening = opening
        self.code = int(opening.dtype)
        self._dtype = _dtypes.STORAGE[self.code]
        self._meter = _Meter(most_bytes)
        rows, sources = opening.rows, opening.sources
        self._is_self = [layer.kind == _SELF for layer in opening.layers]
        self._tokens = [[_Tokens() for _ in range(rows if is_self else sources)] for is_self in self._is_self]
        self._key_starts = [0] * rows
        self._key_bits = (b"", 0)
        self._row_sources = list(opening.row_sources)
        if sources > 0 and not self._row_sources:
            self._row_sources = [row * sources // rows for row in range(rows)]

    @property
    def used_bytes(self) -> int:
        """Bytes of keys, values and the key mask."""
        return self._meter.used

    def note(self, layer: int, step: Optional[session_pb2.SessionStep], appended: Sequence[Array], code: int) -> None:
        """Records a step that succeeded.

        Args:
            layer: its layer.
            step: its fields for rows and sources, if it has any.
            appended: k and v, [rows or sources, kv_heads, tokens, elements]; empty if it appended nothing.
            code: their element type.
        """
        if not self.kept:
            return
        try:
            if step is not None:
                self._change(step)
            if appended:
                both = rounded(np.concatenate(appended, axis=-1), code, self.code)
                self._append(layer, both, step.key_lengths if step is not None else ())
        except (_Full, MemoryError):
            self.give_up()

    def give_up(self) -> None:
        """Empties the log for good."""
        self.kept = False
        self._tokens = []
        self._key_bits = (b"", 0)
        self._meter = _Meter(0)  # chunks freed later are not subtracted from this one

    def opening(self) -> session_pb2.SessionOpen:
        """The opening of a session to be filled from the log. It asks for the model's current version; the caller
        checks that the content is the same."""
        opening = session_pb2.SessionOpen()
        opening.CopyFrom(self._opening)
        opening.version = 0
        del opening.row_sources[:]
        opening.row_sources.extend(self._row_sources)
        return opening

    def settings(self) -> Iterator[session_pb2.SessionStep]:
        """The steps that restore key starts and the key mask."""
        if any(self._key_starts):
            yield session_pb2.SessionStep(key_starts=self._key_starts)
        bits, length = self._key_bits
        if length > 0:
            layer = self._is_self.index(False)
            yield session_pb2.SessionStep(layer=layer, key_bits=bits, key_bits_length=length)

    def pieces(self, layer: int, most_bytes: int) -> Iterator[Piece]:
        """The tokens to append to a layer, in pieces of at most `most_bytes`, but at least one token."""
        tokens = self._tokens[layer]
        longest = max(self.lengths(layer))
        if longest == 0:
            return
        said = self._opening.layers[layer]
        heads, dim = said.kv_heads or said.heads, said.head_dim
        value_dim = said.value_head_dim or dim
        width = len(tokens) * heads * (dim + value_dim) * self._dtype.itemsize
        for begin in range(0, longest, max(1, most_bytes // width)):
            count = min(max(1, most_bytes // width), longest - begin)
            before = [min(begin, one.length) for one in tokens]
            lengths = [min(begin + count, one.length) - first for one, first in zip(tokens, before)]
            k = np.zeros((len(tokens), heads, count, dim), self._dtype)
            v = np.zeros((len(tokens), heads, count, value_dim), self._dtype)
            for i, one in enumerate(tokens):
                one.read(before[i], before[i] + lengths[i], k[i], v[i])
            yield Piece(before, lengths, k, v)

    def lengths(self, layer: int) -> Tuple[int, ...]:
        """Number of tokens of each row or source."""
        return tuple(one.length for one in self._tokens[layer])

    def _change(self, step: session_pb2.SessionStep) -> None:
        if step.reorder:
            self._reorder(step.reorder)
        for tokens in self._self_layers():
            for one, length in zip(tokens, step.truncate):
                one.cut(length)
        if step.key_starts:
            self._key_starts = list(step.key_starts)
        if step.key_bits_length > 0:
            self._meter.add(len(step.key_bits) - len(self._key_bits[0]))
            self._key_bits = (step.key_bits, step.key_bits_length)

    def _reorder(self, order: Sequence[int]) -> None:
        for tokens in self._self_layers():
            tokens[:] = [_Tokens(tokens[row].chunks, tokens[row].length) for row in order]
        self._key_starts = [self._key_starts[row] for row in order]
        if self._row_sources:
            self._row_sources = [self._row_sources[row] for row in order]

    def _append(self, layer: int, array: Array, lengths: Sequence[int]) -> None:
        for i, one in enumerate(self._tokens[layer]):
            one.append(array[i, :, : lengths[i]] if lengths else array[i], self._meter)

    def _self_layers(self) -> Iterator[List[_Tokens]]:
        return (tokens for tokens, is_self in zip(self._tokens, self._is_self) if is_self)
