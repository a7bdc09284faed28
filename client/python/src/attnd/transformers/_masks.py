"""Converts Hugging Face's 2-D masks to attnd's arguments, without a tensor of [queries, keys]."""

from __future__ import annotations

from typing import Any, Dict, Optional

import numpy as np
import torch
from transformers import masking_utils

from attnd.transformers._refused import Refused

# Attribute of a mask tensor: its Keys, computed once per forward pass. The tensor itself is [batch, 1, 1, keys], a view
# of the 2-D mask, and passes unchanged through all layers.
_TAG = "_attnd_keys"
_ACCEPTED = "None, or a mask of [batch, keys]"

Keys = Dict[str, Any]


def keys_of(visible: np.ndarray[Any, Any]) -> Optional[Keys]:
    """The arguments of a call that select the visible keys; None if all are visible.

    Args:
        visible: bool [batch, keys].
    """
    count = visible.sum(axis=1)
    length = visible.shape[1]
    if (count == length).all():
        return None
    # A row without a visible key has first = end = 0.
    first = np.where(count > 0, visible.argmax(axis=1), 0)
    end = np.where(count > 0, length - visible[:, ::-1].argmax(axis=1), 0)
    if (end - first != count).any():
        return {"key_mask": visible}
    keys: Keys = {"key_lengths": end.tolist()}
    if first.any():
        keys["key_starts"] = first.tolist()
    return keys


def mask_function(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: Any = 0,
    mask_function: Any = None,
    attention_mask: Any = None,
    use_vmap: bool = False,
    **others: Any,
) -> Any:
    """Makes the mask of a forward pass, for a model with attnd's attention implementation; called by transformers.

    For an encoder: None, or bool [batch, 1, 1, keys] with its Keys. Otherwise, for example for a decoder that was
    switched to this implementation by name: sdpa's mask.
    """
    of_encoder = (
        mask_function is masking_utils.bidirectional_mask_function
        and not use_vmap
        and isinstance(q_offset, int)
        and q_offset == kv_offset == 0
        and q_length == kv_length
    )
    if not of_encoder:
        return masking_utils.sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            use_vmap=use_vmap,
            **others,
        )
    if attention_mask is None:
        return None
    keys = keys_of(_numpy(attention_mask))
    if keys is None:
        return None
    mask = attention_mask[:, None, None, :]
    setattr(mask, _TAG, keys)
    return mask


def keys_in(mask: Any, takes_float_mask: bool) -> Optional[Keys]:
    """The Keys of an attention function's mask.

    Args:
        mask: the function's argument.
        takes_float_mask: whether the layer's stack makes a float mask [batch, 1, 1, keys] from the 2-D one.

    Raises:
        Refused: the mask does not come from a 2-D mask, but differs by query.
    """
    if mask is None:
        return None
    keys: Any = getattr(mask, _TAG, _MISSING)
    if keys is not _MISSING:
        return keys  # type: ignore[no-any-return]
    if not takes_float_mask or mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[2] != 1:
        raise _refused(mask)
    row = mask[:, 0, 0, :]
    visible = row == 0
    if not bool((visible | (row == torch.finfo(row.dtype).min)).all()):
        raise Refused.of("attention_mask", "ones and zeros", "a mask with other values")
    keys = keys_of(_numpy(visible))
    setattr(mask, _TAG, keys)
    return keys  # type: ignore[no-any-return]


_MISSING = object()


def _refused(mask: Any) -> Refused:
    got = f"one of {list(mask.shape)}, which says for each query what it sees"
    return Refused.of("attention_mask", _ACCEPTED, got)


def _numpy(mask: Any) -> Any:
    if mask.device.type != "cpu":
        raise Refused.of("attention_mask", "a tensor in the CPU's memory", f"one on {mask.device}")
    return mask.numpy()
