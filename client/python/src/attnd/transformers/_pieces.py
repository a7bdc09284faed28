"""Converts a decoder layer's tensors and scale for a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, Optional, Tuple

if TYPE_CHECKING:
    from attnd.transformers._decoders import AttentionLayer

# The most bytes of keys and values that are appended at once: a session's memory for messages grows to its largest.
_PIECE_BYTES = 4 << 20


def pieces(key: Any, value: Any) -> Iterator[Tuple[Any, Any]]:
    """Splits keys and values [rows, tokens, heads, head_dim] into pieces of at most _PIECE_BYTES, or of one token."""
    tokens = key.shape[1]
    if tokens == 0:
        return
    width = (key[:, :1].numel() + value[:, :1].numel()) * key.element_size()
    count = max(1, _PIECE_BYTES // width)
    for begin in range(0, tokens, count):
        yield key[:, begin : begin + count], value[:, begin : begin + count]


def scale_of(layer: AttentionLayer) -> Optional[float]:
    """The layer's scale as a session layer's argument: None for 1."""
    scaling = float(layer.module.scaling)
    return None if scaling == 1.0 else scaling
