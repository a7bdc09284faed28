"""The functions that transformers calls for the attention of each layer."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attnd.transformers._bias import pass_of
from attnd.transformers._compiling import not_compiled
from attnd.transformers._masks import keys_in, mask_function
from attnd.transformers._refused import Refused
from attnd.transformers._undo import NAME, Mark

_NO_GRADIENTS = "no gradients: run the model in torch.inference_mode() or torch.no_grad()"


@not_compiled
def attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: Any = None,
    position_bias: Any = None,
    **others: Any,
) -> Tuple[Any, None]:
    """Computes softmax(scaling * query.key + bias) . value, over the keys that the mask shows.

    Args:
        module: the attention layer. If it is not attached, sdpa computes it: several models may share a config.
        query: [batch, heads, queries, head_dim].
        key: [batch, heads, keys, head_dim].
        value: [batch, heads, keys, head_dim].
        attention_mask: from :func:`mask_function`, or made from the 2-D mask by the stack.
        dropout: of the attention's weights.
        scaling: factor of query.key; None is 1 / sqrt(head_dim).
        position_bias: from a :class:`Bias`.
        others: further arguments of transformers.

    Returns:
        The output [batch, queries, heads, head_dim], and no weights.
    """
    mark = vars(module).get(Mark.NAME)
    found = pass_of(position_bias)
    if found is None:
        if mark is not None:
            raise Refused.of("position_bias", "the one that the layer's compute_bias made", "another tensor, or a copy")
        return _local(module, query, key, value, attention_mask, dropout, scaling, position_bias, others)
    _check(module, query, key, value, dropout, others)
    keys = keys_in(attention_mask, mark is not None and mark.takes_float_mask)
    if found.content is None:
        return _local(module, query, key, value, attention_mask, dropout, scaling, position_bias, others)
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    return found.handle.compute(found.content, query, key, value, keys or {}, float(scaling)), None


def register() -> None:
    """Registers the functions with transformers. May be called any number of times."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)


_mask = not_compiled(mask_function)


def _local(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    dropout: float,
    scaling: Any,
    position_bias: Any,
    others: Dict[str, Any],
) -> Tuple[Any, None]:
    result: Tuple[Any, None] = ALL_ATTENTION_FUNCTIONS["sdpa"](
        module, query, key, value, mask, dropout=dropout, scaling=scaling, position_bias=position_bias, **others
    )
    return result


def _check(module: Any, query: Any, key: Any, value: Any, dropout: float, others: Dict[str, Any]) -> None:
    if query.device.type != "cpu":
        raise Refused.of("model", "a model in the CPU's memory", f"one on {query.device}")
    if dropout > 0:
        raise Refused.of("model", "no dropout: model.eval()", f"training mode, with a dropout of {dropout:g}")
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        got = "training mode, with gradients" if module.training else "a forward pass that records gradients"
        raise Refused.of("model", _NO_GRADIENTS, got)
    if others.get("output_attentions") or module.config.output_attentions:
        expected = "False, since the weights of the attention are never made"
        raise Refused.of("output_attentions", expected, "True")
