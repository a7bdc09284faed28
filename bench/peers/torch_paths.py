"""PyTorch's ways to compute causal attention with a T5 bias on the CPU. Threads: `torch.set_num_threads`."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional
from torch.nn.attention import flex_attention as flex

import pages
import t5_bias
from case import Inputs
from path import Path

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def versions() -> dict[str, str]:
    blas = "MKL" if torch.backends.mkl.is_available() else "no MKL"
    return {
        "torch": f"{torch.__version__} ({torch.backends.cpu.get_cpu_capability()}, {blas})",
        "transformers": importlib.metadata.version("transformers"),
    }


def prepare(name: str, inputs: Inputs) -> Path:
    torch.set_grad_enabled(False)
    # Every size is compiled for itself. Past its limit PyTorch would quietly run the function uncompiled.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch.set_num_threads(inputs.case.threads)
    return PATHS[name](inputs)


def _placed(inputs: Inputs, tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the case's pages. numpy has no bfloat16, so that the bits travel as integers."""
    dtype = tensor.dtype
    bits = {4: torch.int32, 2: torch.int16}[dtype.itemsize]
    return torch.from_numpy(inputs.place(tensor.contiguous().view(bits).numpy())).view(dtype)


def _tensor(inputs: Inputs, values: np.ndarray) -> torch.Tensor:
    """The case's dtype, on the case's pages: `values` themselves if they are of that dtype and lie there."""
    tensor = torch.from_numpy(values)
    dtype = DTYPES[inputs.case.dtype]
    return tensor if tensor.dtype == dtype else _placed(inputs, tensor.to(dtype))


def _tensors(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(_tensor(inputs, x) for x in (inputs.q, inputs.k, inputs.v))


def _mask(inputs: Inputs) -> torch.Tensor:
    return _tensor(inputs, inputs.mask()).unsqueeze(0)


def _memory(*tensors: torch.Tensor) -> tuple[pages.Span, ...]:
    return tuple((tensor.data_ptr(), tensor.nbytes) for tensor in tensors)


def _numpy(result: torch.Tensor) -> np.ndarray:
    return result.float().numpy()


def sdpa_mask(inputs: Inputs) -> Path:
    """scaled_dot_product_attention, the bias and the causal mask in one ready matrix."""
    q, k, v = _tensors(inputs)
    mask = _mask(inputs)
    run = functools.partial(functional.scaled_dot_product_attention, q, k, v, attn_mask=mask, scale=1.0)
    return Path(run, _numpy, _memory(k, v), precision=inputs.case.dtype)


def sdpa_causal(inputs: Inputs) -> Path:
    """scaled_dot_product_attention(is_causal=True): less work, for it has no bias."""
    q, k, v = _tensors(inputs)
    run = functools.partial(functional.scaled_dot_product_attention, q, k, v, is_causal=True, scale=1.0)
    return Path(run, _numpy, _memory(k, v), with_bias=False, precision=inputs.case.dtype)


def sdpa_plain(inputs: Inputs) -> Path:
    """scaled_dot_product_attention without bias or mask: what one query per sequence needs."""
    q, k, v = _tensors(inputs)
    run = functools.partial(functional.scaled_dot_product_attention, q, k, v, scale=1.0)
    return Path(run, _numpy, _memory(k, v), with_bias=False, precision=inputs.case.dtype)


def sdpa_view_chunks(inputs: Inputs, chunk: int = 256) -> Path:
    """The best trick known to us: no matrix, but the per-offset bias seen as one by an overlapping view.

    A view needs row r+1 to start one entry later than row r, which holds for queries in reverse order: so each chunk of
    queries is flipped, and its result flipped back. A chunk sees only the keys up to its last query.
    """
    q, k, v = _tensors(inputs)
    line = _tensor(inputs, inputs.place(t5_bias.descending_with_future(inputs.offset_bias())))
    n = inputs.case.keys

    def run() -> torch.Tensor:
        out = torch.empty_like(q)
        for begin in range(0, n, chunk):
            end = min(n, begin + chunk)
            # Row r is query end-1-r; key j stands at offset end-1-r-j, entry n-end+r+j.
            mask = line.as_strided((1, line.size(0), end - begin, end), (0, line.stride(0), 1, 1), n - end)
            flipped = q[:, :, begin:end].flip(2)
            part = functional.scaled_dot_product_attention(flipped, k[:, :, :end], v[:, :, :end], mask, scale=1.0)
            out[:, :, begin:end] = part.flip(2)
        return out

    return Path(run, _numpy, _memory(k, v), precision=inputs.case.dtype, note=f"chunks of {chunk}")


def _products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(2, 3) + mask, dim=-1) @ v


def compiled(inputs: Inputs) -> Path:
    """matmul, add, softmax, matmul, through torch.compile."""
    q, k, v = _tensors(inputs)
    mask = _mask(inputs)
    function = torch.compile(_products, dynamic=False)
    return Path(functools.partial(function, q, k, v, mask), _numpy, _memory(k, v), precision=inputs.case.dtype)


def flex_t5(inputs: Inputs) -> Path:
    """FlexAttention, compiled: the bias read by offset in the score modifier, tiles that no query sees left out."""
    q, k, v = _tensors(inputs)
    bias = torch.from_numpy(inputs.offset_bias())
    queries, keys = inputs.case.queries, inputs.case.keys
    past = keys - queries

    def add_bias(score, batch, head, query, key):
        return score + bias[head, (past + query - key).clamp(min=0)].to(score.dtype)

    window = inputs.case.window or keys

    def seen(batch, head, query, key):
        return (past + query >= key) & (past + query - key < window)

    # One query sees every key, and has FlexAttention's path for decoding if there is no mask.
    visible = flex.create_block_mask(seen, None, None, queries, keys, device="cpu") if queries > 1 else None
    function = torch.compile(flex.flex_attention, dynamic=False)
    run = functools.partial(function, q, k, v, score_mod=add_bias, block_mask=visible, scale=1.0)
    return Path(run, _numpy, _memory(k, v), precision=inputs.case.dtype)


def _hugging_face_layer(inputs: Inputs):
    from transformers.models.t5 import modeling_t5

    case = inputs.case
    config = modeling_t5.T5Config(
        d_model=case.heads * case.dim,
        d_kv=case.dim,
        num_heads=case.heads,
        relative_attention_num_buckets=t5_bias.NUM_BUCKETS,
        relative_attention_max_distance=t5_bias.MAX_DISTANCE,
        is_decoder=True,
    )
    layer = modeling_t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0).eval()
    layer.relative_attention_bias.weight.data = torch.from_numpy(inputs.table).to(DTYPES[case.dtype])
    return layer


def _hf_attention(inputs: Inputs, attend: Callable) -> Path:
    """One of Hugging Face's attention functions on a T5 layer; its bias and its causal mask are ready."""
    layer = _hugging_face_layer(inputs)
    q, k, v = _tensors(inputs)
    case = inputs.case
    past = case.keys - case.queries
    bias = _placed(inputs, layer.compute_bias(case.queries, case.keys, past_seen_tokens=past))
    position = torch.arange(case.keys)
    future = position[None, :] > position[past:, None]
    zeros = torch.zeros(1, 1, case.queries, case.keys, dtype=q.dtype)
    mask = _placed(inputs, zeros.masked_fill_(future, torch.finfo(q.dtype).min))
    run = functools.partial(attend, layer, q, k, v, mask, scaling=1.0, position_bias=bias)
    return Path(run, lambda result: _numpy(result[0].transpose(1, 2)), _memory(k, v), precision=inputs.case.dtype)


def hf_t5(inputs: Inputs) -> Path:
    """T5's own function, `eager`."""
    from transformers.models.t5 import modeling_t5

    return _hf_attention(inputs, modeling_t5.eager_attention_forward)


def hf_t5_sdpa(inputs: Inputs) -> Path:
    """`sdpa`, which T5 takes since transformers 5.15: bias and mask are added up in each call."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return _hf_attention(inputs, sdpa_attention_forward)


def hf_t5_bias(inputs: Inputs) -> Path:
    """Hugging Face's `compute_bias` alone. Checked by adding it to the products."""
    layer = _hugging_face_layer(inputs)
    q, k, v = _tensors(inputs)
    case = inputs.case
    past = case.keys - case.queries

    def attention(bias: torch.Tensor) -> np.ndarray:
        future = torch.full((case.queries, case.keys), -torch.inf, dtype=q.dtype).triu(past + 1)
        return _numpy(_products(q, k, v, bias + future))

    run = functools.partial(layer.compute_bias, case.queries, case.keys, past_seen_tokens=past)
    return Path(run, attention, _memory(k, v), precision=inputs.case.dtype)


PATHS = {
    path.__name__: path
    for path in (sdpa_mask, sdpa_causal, sdpa_plain, sdpa_view_chunks, compiled, flex_t5, hf_t5, hf_t5_sdpa, hf_t5_bias)
}
