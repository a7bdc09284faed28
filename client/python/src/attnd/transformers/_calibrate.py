"""From which length on a call to the server is faster than computing here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, List

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from attnd.transformers._families import Encoder
    from attnd.transformers._handle import Handle

_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
# Where a call is not faster even at the longest of these.
_NEVER_FASTER = 2 * _LENGTHS[-1]
_REPEATS = 5
_BUDGET = 0.5  # seconds


def measure(handle: Handle, encoders: List[Encoder]) -> int:
    """The shortest of a few lengths at which one sequence's attention takes less time by a call.

    Takes the first encoder's heads and dtype, and counts the making of the bias, shared among the layers as the model
    shares it. Takes about half a second at most.
    """
    encoder = encoders[0]
    layer = encoder.layers[0]
    owners = sum(bool(each.has_relative_attention_bias) for each in encoder.layers)
    share = owners / len(encoder.layers)
    content = handle.layer_tables[0].content()
    dtype = layer.q.weight.dtype if layer.q.weight.is_floating_point() else torch.float32
    until = time.perf_counter() + _BUDGET
    with torch.inference_mode():
        for length in _LENGTHS:
            q, k, v = (_states(handle, layer, length, dtype) for _ in range(3))

            def call(q: Any = q, k: Any = k, v: Any = v) -> None:
                handle.compute(content, q, k, v, {}, 1.0)

            bias = layer.compute_bias(length, length)

            def local(q: Any = q, k: Any = k, v: Any = v, bias: Any = bias) -> None:
                functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0).transpose(1, 2).contiguous()

            def make_bias(length: int = length) -> None:
                layer.compute_bias(length, length)

            if _fastest(call) <= _fastest(local) + share * _fastest(make_bias):
                return length
            if time.perf_counter() > until:
                return 2 * length
    return _NEVER_FASTER


def _states(handle: Handle, layer: Any, length: int, dtype: Any) -> Any:
    """[1, heads, length, head_dim], as a projection gives it."""
    shape = (1, length, layer.n_heads, layer.key_value_proj_dim)
    states = handle.memory.make(shape, dtype)
    if states is None:
        states = torch.empty(shape, dtype=dtype)
    return states.normal_().transpose(1, 2)


def _fastest(function: Callable[[], None]) -> float:
    function()
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best
