"""Projections that write q, k and v to memory shared with the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List

import torch

from attnd.transformers._compiling import not_compiled
from attnd.transformers._undo import NAME, Method

if TYPE_CHECKING:
    from attnd.transformers._handle import Handle


class Projection(Method):
    """Replaces `forward` of one q, k or v projection: gives the Linear's result, in memory shared with the server."""

    def __init__(self, module: Any, handle: Handle, attention: Any) -> None:
        super().__init__(module, "forward")
        self._handle = handle
        self._attention = attention

    @not_compiled
    def __call__(self, states: Any) -> Any:
        weight = self.module.weight
        handle = self._handle
        if (
            torch.is_grad_enabled()
            or states.dim() != 3
            or states.shape[1] < handle.min_length
            or states.dtype is not weight.dtype
            or weight.device.type != "cpu"
            or torch.is_autocast_enabled("cpu")
            or self._attention.config._attn_implementation != NAME
        ):
            return self.original(states)
        batch, length, width = states.shape
        out = handle.memory.make((batch * length, weight.shape[0]), weight.dtype)
        if out is None:
            return self.original(states)
        torch.mm(states.reshape(batch * length, width), weight.t(), out=out)
        return out.view(batch, length, -1)


def projections(layer: Any, handle: Handle) -> List[Projection]:
    """The replaced projections of a layer's q, k and v. Only plain Linear modules without bias are replaced, not
    adapters or quantized ones."""
    return [
        Projection(linear, handle, layer)
        for linear in (layer.q, layer.k, layer.v)
        if type(linear) is torch.nn.Linear and linear.bias is None and "forward" not in vars(linear)
    ]
