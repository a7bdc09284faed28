"""Measures from how many tokens on a decoder's self-attention is faster in a session than locally."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable

import torch
from torch.nn import functional

from attnd import SelfLayer
from attnd.transformers._calibrate import Projection, seconds
from attnd.transformers._quick_step import QuickSteps

if TYPE_CHECKING:
    from attnd.transformers._decoders import Decoder
    from attnd.transformers._handle import Handle

_TOKENS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_BUDGET = 0.5  # seconds


def measure(handle: Handle, decoder: Decoder) -> int:
    """Finds the smallest of a few numbers of tokens for which a step of one layer is faster in a session.

    It must be faster with that number and with the next larger one, so that a single interruption does not decide. Uses
    one row and the decoder's heads and dtype. Takes about half a second.

    Returns:
        That number; if there is none, twice the largest that was tried.
    """
    layer = decoder.self_layers[0]
    dtype = next(layer.module.parameters()).dtype
    place = handle.place(handle.contents_of(decoder.path(0)))
    shapes = [SelfLayer(layer.heads, layer.head_dim, table=place.tables[0])]
    kind = str(dtype).rpartition(".")[2]
    before = Projection(1, layer.module.d_model if hasattr(layer.module, "d_model") else 512, dtype)
    first = 0
    start = time.perf_counter()
    with handle.client.session(
        shapes, place.model, max_tokens=2 * _TOKENS[-1], dtype=kind, timeout=handle.timeout
    ) as session:
        quick = QuickSteps(session, handle.timeout)
        have = 0
        # The shortest of several runs counts, because another process may take the CPUs during most of them.
        for tokens in _TOKENS:
            new = torch.zeros(1, tokens - have, layer.heads, layer.head_dim, dtype=dtype)
            session.append(0, new, new, layout="bshd", timeout=handle.timeout)
            one = new[:, :1]

            def remote(one: Any = one) -> Any:
                if quick.attend(0, (one, one, one)) is None:
                    session.attend(0, one, one, one, layout="bshd", timeout=handle.timeout)

            remotely = seconds(remote, before, min)
            locally = seconds(_local(layer.heads, layer.head_dim, tokens, dtype), before, min)
            have = session.lengths(0)[0]
            if remotely >= locally:
                first = 0
            elif first == 0:
                first = tokens
            else:
                return first
            if time.perf_counter() - start > _BUDGET:
                break
    return first or 2 * tokens


def _local(heads: int, dim: int, tokens: int, dtype: Any) -> Callable[[], Any]:
    """Makes a function that does what transformers does in a step of a layer: it appends keys and values, and calls
    sdpa with a bias."""
    kept = torch.zeros(1, heads, tokens, dim, dtype=dtype)
    new = kept[:, :, :1]
    bias = torch.zeros(1, heads, 1, tokens + 1, dtype=dtype)

    def run() -> Any:
        keys, values = torch.cat([kept, new], dim=2), torch.cat([kept, new], dim=2)
        return functional.scaled_dot_product_attention(new, keys, values, attn_mask=bias.contiguous(), scale=1.0)

    return run
