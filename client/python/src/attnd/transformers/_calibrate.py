"""Measures from which length on a call to the server is faster than local computation."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Callable, List

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from attnd.transformers._families import Encoder
    from attnd.transformers._handle import Handle

_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
_REPEATS = 7
_BUDGET = 0.5  # seconds


def measure(handle: Handle, encoders: List[Encoder]) -> int:
    """Returns the shortest of a few lengths at which a call is faster for one sequence's attention.

    A call must be faster at that length and at twice that length, so that a single interruption does not decide. Uses
    the first encoder's heads and dtype, and counts the computation of the bias, divided by the layers that share it.
    Takes about half a second; with large models, up to the time of one length more.
    """
    encoder = encoders[0]
    layer = encoder.layers[0]
    owners = sum(bool(each.has_relative_attention_bias) for each in encoder.layers)
    share = owners / len(encoder.layers)
    content = handle.contents_of(encoder.path(0))[0]
    dtype = layer.q.weight.dtype if layer.q.weight.is_floating_point() else torch.float32
    until = time.perf_counter() + _BUDGET
    found = _LENGTHS[0]
    with torch.inference_mode():
        for length in _LENGTHS:
            q, k, v = (_states(handle, layer, length, dtype) for _ in range(3))
            bias = layer.compute_bias(length, length)

            def call(q: Any = q, k: Any = k, v: Any = v) -> None:
                handle.compute(content, q, k, v, {}, 1.0)

            def local(q: Any = q, k: Any = k, v: Any = v, bias: Any = bias) -> None:
                functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0).transpose(1, 2).contiguous()

            def make_bias(length: int = length) -> None:
                layer.compute_bias(length, length)

            before = Projection(length, layer.q.in_features, dtype) if hasattr(layer.q, "in_features") else None
            if seconds(call, before) > seconds(local, before) + share * seconds(make_bias, before):
                found = 2 * length
            elif found < length:
                return found
            if time.perf_counter() > until:
                break
    return found


class Projection:
    """A projection, as it runs before the attention in a model: it leaves caches and torch's threads in the same state
    as there."""

    def __init__(self, length: int, width: int, dtype: Any) -> None:
        self._states = torch.zeros(length, width, dtype=dtype)
        self._weight = torch.zeros(width, width, dtype=dtype)

    def __call__(self) -> None:
        torch.mm(self._states, self._weight)


def _states(handle: Handle, layer: Any, length: int, dtype: Any) -> Any:
    """Random [1, heads, length, head_dim] with the strides of a projection's output."""
    shape = (1, length, layer.n_heads, layer.key_value_proj_dim)
    states = handle.memory.make(shape, dtype)
    if states is None:
        states = torch.empty(shape, dtype=dtype)
    return states.normal_().transpose(1, 2)


def seconds(function: Callable[[], Any], before: Any, of: Callable[[List[float]], float] = statistics.median) -> float:
    """The seconds of `function`: the median (or `of`) of several runs."""
    function()
    found: List[float] = []
    for _ in range(_REPEATS):
        if before is not None:
            before()
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return of(found)
