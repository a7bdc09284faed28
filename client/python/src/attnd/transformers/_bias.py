"""The position_bias of a forward pass: a tensor without memory of its own that carries the bias table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import torch

from attnd.transformers._compiling import not_compiled
from attnd.transformers._undo import NAME, Method

if TYPE_CHECKING:
    from attnd.transformers._handle import Handle
    from attnd.transformers._tables import Content, LayerTable

# Attribute of a position_bias: its Pass. transformers passes that tensor unchanged from layer to layer.
_TAG = "_attnd_pass"


class Pass(NamedTuple):
    """How the layers that share one position_bias compute their attention.

    Attributes:
        handle: the model's.
        content: the table with the current weights; None if the attention is computed locally, with the real bias.
    """

    handle: Handle
    content: Optional[Content]


class Bias(Method):
    """Replaces `compute_bias` of one attention layer."""

    def __init__(self, module: Any, handle: Handle, table: LayerTable) -> None:
        super().__init__(module, "compute_bias")
        self._handle = handle
        self._table = table

    @not_compiled
    def __call__(self, query_length: Any, key_length: Any, device: Any = None, past_seen_tokens: Any = 0) -> Any:
        if self.module.config._attn_implementation != NAME:
            # Another implementation has been set since.
            return self.original(query_length, key_length, device, past_seen_tokens)
        if query_length < self._handle.min_length:
            bias = self.original(query_length, key_length, device, past_seen_tokens)
            content = None
        else:
            content = self._table.content()
            # Only the shape matters: neither dtype nor values are read.
            bias = torch.zeros(()).expand(1, content.heads, query_length, key_length)
        setattr(bias, _TAG, Pass(self._handle, content))
        return bias


def pass_of(position_bias: Any) -> Optional[Pass]:
    """The Pass of a position_bias; None if it was not made by a :class:`Bias`."""
    return getattr(position_bias, _TAG, None)
