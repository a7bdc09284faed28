"""Cuts a large call into pieces that are sent and computed separately, as the C++ client does."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np

from attnd import _masks, _wire
from attnd._request import Call

# Bytes of q, k, v and output together. A call of less than two pieces is not cut.
PIECE_BYTES = 1 << 20


class Range(NamedTuple):
    """Part of a call: some sequences with all heads, or one sequence with some key/value heads and all their query
    heads."""

    first_batch: int
    batch: int
    first_kv_head: int
    kv_heads: int


def call_bytes(call: Call) -> int:
    """Bytes of all tensors, including the output."""
    return int(call.q.nbytes + call.k.nbytes + call.v.nbytes + call.output_bytes)


def cut(call: Call, piece_bytes: int = PIECE_BYTES) -> List[Range]:
    """Ranges that cover the call, each of about `piece_bytes`, but at least one key/value head of one sequence."""
    batch, kv_heads = call.shape.batch, call.shape.kv_heads
    if call.request.kv_rows is not None or (call.request.query_segments is not None and batch > 1):
        return [Range(0, batch, 0, kv_heads)]
    pieces = min(max(call_bytes(call) // piece_bytes, 1), batch * kv_heads)
    # Cut evenly, so that no small remainder is left.
    if pieces <= batch:
        bounds = [batch * i // pieces for i in range(pieces + 1)]
        return [Range(begin, end - begin, 0, kv_heads) for begin, end in zip(bounds, bounds[1:])]
    per_sequence = min(kv_heads, -(-pieces // batch))
    bounds = [kv_heads * i // per_sequence for i in range(per_sequence + 1)]
    return [Range(b, 1, begin, end - begin) for b in range(batch) for begin, end in zip(bounds, bounds[1:])]


def part(call: Call, piece: Range, array: np.ndarray[Any, Any], of_keys: bool) -> np.ndarray[Any, Any]:
    """A piece's view of a tensor of the whole call: k or v (`of_keys`), or q or the output."""
    group = 1 if of_keys else call.shape.heads // call.shape.kv_heads
    heads = slice(piece.first_kv_head * group, (piece.first_kv_head + piece.kv_heads) * group)
    sequences = slice(piece.first_batch, piece.first_batch + piece.batch)
    return array[sequences, :, heads] if call.sequence_first and array.ndim == 4 else array[sequences, heads]


class Piece:
    """A piece as a separate call, with the attributes of `Call` that an answer is checked against."""

    __slots__ = ("_call", "_range", "code", "log_sum_exp_shape", "out", "output_code", "output_shape")

    def __init__(self, call: Call, piece: Range, out: np.ndarray[Any, Any]) -> None:
        self._call = call
        self._range = piece
        self.code = call.code
        self.output_code = call.output_code
        place = part(call, piece, out, False)
        self.out: Optional[np.ndarray[Any, Any]] = place
        self.output_shape: Tuple[int, ...] = place.shape
        self.log_sum_exp_shape: Optional[Tuple[int, ...]] = None
        if call.log_sum_exp_shape is not None:
            group = call.shape.heads // call.shape.kv_heads
            self.log_sum_exp_shape = (piece.batch, piece.kv_heads * group, call.shape.query_length)

    def payload(self) -> bytes:
        """The serialised ComputeAttentionRequest."""
        call, piece = self._call, self._range
        group = call.shape.heads // call.shape.kv_heads
        header = call.header()
        header.batch = piece.batch
        header.heads = piece.kv_heads * group
        header.kv_heads = piece.kv_heads
        sequences = slice(piece.first_batch, piece.first_batch + piece.batch)
        for values in (
            header.query_offsets,
            header.query_lengths,
            header.key_lengths,
            header.key_starts,
            header.prefix_lengths,
        ):
            if len(values) > 0:
                values[:] = values[sequences]
        header.key_bits = _masks.bits_of_sequences(header.key_bits, call.shape.key_length, sequences)
        if len(header.key_bias) > 0:
            keys = call.shape.key_length
            first = piece.first_kv_head * group
            header.key_bias[:] = header.key_bias[first * keys : (first + piece.kv_heads * group) * keys]
        if call.has_bias and piece.kv_heads != call.shape.kv_heads:
            # From the piece alone the server cannot check that the call has as many heads as the table.
            if not header.HasField("first_head"):
                header.table_heads = call.shape.heads
            header.first_head += piece.first_kv_head * group
        q = part(call, piece, call.q, False)
        k, v = part(call, piece, call.k, True), part(call, piece, call.v, True)
        return _wire.join(header.SerializeToString(), ((_wire.Q, q), (_wire.K, k), (_wire.V, v)))

    def place_log_sum_exp(self, whole: np.ndarray[Any, Any], of_piece: np.ndarray[Any, Any]) -> None:
        part(self._call, self._range, whole, False)[...] = of_piece
