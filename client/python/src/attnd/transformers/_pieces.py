"""How a decoder's layers are told to a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, Optional, Tuple

if TYPE_CHECKING:
    from attnd.transformers._decoders import AttentionLayer

# Of keys and values that are appended at once: a session's memory for messages grows to the largest one.
_PIECE_BYTES = 4 << 20


def pieces(key: Any, value: Any) -> Iterator[Tuple[Any, Any]]:
    """Keys and values [rows, tokens, heads, head_dim] in parts of a few tokens."""
    tokens = key.shape[1]
    if tokens == 0:
        return
    width = (key[:, :1].numel() + value[:, :1].numel()) * key.element_size()
    count = max(1, _PIECE_BYTES // width)
    for begin in range(0, tokens, count):
        yield key[:, begin : begin + count], value[:, begin : begin + count]


def scale_of(layer: AttentionLayer) -> Optional[float]:
    """A session's factor of query.key, None for 1."""
    scaling = float(layer.module.scaling)
    return None if scaling == 1.0 else scaling
