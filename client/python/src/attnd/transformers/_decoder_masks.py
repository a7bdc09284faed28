"""Converts the 4-D masks of a decoder's layers to what sessions support: the visible keys of each row."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import numpy as np
import torch

from attnd.transformers._refused import Refused

Visible = np.ndarray[Any, Any]
# Initial value of "the mask checked last". All layers of a forward pass get the same tensor, which is checked once.
UNSEEN: Any = object()


def visible_to_all(mask: Any, rows: int, keys: int) -> Optional[Visible]:
    """The visible keys of a cross layer: bool [rows, keys]; None if all are visible.

    Args:
        mask: None, or [rows or 1, 1, queries, keys or more], of bool or of floats to add.

    Raises:
        Refused: queries of a row see different keys, or a float mask has values other than 0 and the dtype's minimum.
    """
    if mask is None:
        return None
    seen = _seen(mask, keys)
    last = seen[:, -1]
    if seen.shape[1] > 1 and not bool((seen == last[:, None]).all()):
        raise _refused(mask, "encoder_attention_mask")
    return _all_or(last, rows)


def visible_and_causal(mask: Any, rows: int, keys: int) -> Optional[Visible]:
    """As `visible_to_all`, for a self layer whose queries are its last tokens. Keys after a query must be hidden.

    Raises:
        Refused: the mask is not the combination of a causal mask and a mask [rows, keys].
    """
    if mask is None:
        return None
    seen = _seen(mask, keys)
    last, queries = seen[:, -1], seen.shape[1]
    if queries > 1:
        causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        # Some versions let padding queries, which see nothing, see arbitrary keys; their output is never read.
        right = (seen == (last[:, None] & causal)).all(-1) | ~last[:, -queries:]
        if not bool(right.all()):
            raise _refused(mask, "decoder_attention_mask")
    return _all_or(last, rows)


def left_padding(visible: Optional[Visible]) -> Optional[Tuple[int, ...]]:
    """The first visible key of each row; empty if all are visible; None if keys after the first visible one are
    hidden."""
    if visible is None:
        return ()
    first = visible.argmax(axis=1)
    if (visible.sum(axis=1) != visible.shape[1] - first).any():
        return None
    return tuple(first.tolist())


def _seen(mask: Any, keys: int) -> Any:
    """The mask as bool [rows or 1, queries, keys]."""
    if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[3] < keys:
        raise _refused(mask, "attention_mask")
    mask = mask[:, 0, :, :keys]
    if mask.dtype is torch.bool:
        return mask
    seen = mask == 0
    if not bool((seen | (mask <= torch.finfo(mask.dtype).min)).all()):
        raise Refused.of("attention_mask", "ones and zeros", "a mask with other values")
    return seen


def _all_or(last: Any, rows: int) -> Optional[Visible]:
    visible: Visible = last.expand(rows, last.shape[1]).numpy()
    return None if visible.all() else visible


def _refused(mask: Any, field: str) -> Refused:
    got = f"one of {list(mask.shape)}, which says for each head or query what it sees"
    return Refused.of(field, "None, or a mask of [batch, keys]", got)
