#!/usr/bin/env python3
"""Writes attention/mask_*.safetensors: windows, prefixes and key biases, in float64 by PyTorch and Hugging Face.

usage: make_mask_cases.py FOLDER        needs torch, transformers and safetensors

The form is that of the other files in attention/ (see the README there). The outputs are those of PyTorch's
scaled_dot_product_attention in float64 over a mask matrix, with T5's buckets as Hugging Face has them; of
mask_longt5_local those of Hugging Face's LongT5LocalAttention, and of mask_falcon_alibi with Falcon's own alibi.
"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.falcon.modeling_falcon import build_alibi_tensor
from transformers.models.longt5.configuration_longt5 import LongT5Config
from transformers.models.longt5.modeling_longt5 import LongT5LocalAttention, _get_local_attention_mask
from transformers.models.t5.modeling_t5 import T5Attention

torch.set_num_threads(1)
DIM = 16


def table_bias(table, rule, queries, keys, offset):
    """[heads, queries, keys] in float64."""
    relative = torch.arange(keys)[None, :] - (torch.arange(queries)[:, None] + offset)
    buckets = T5Attention._relative_position_bucket(
        relative, bidirectional=rule["bidirectional"], num_buckets=rule["num_buckets"], max_distance=rule["max_distance"]
    )
    return table.double()[buckets].permute(2, 0, 1)


def seen(case, batch, queries, keys):
    """[batch, queries, keys]: the formula of ComputeAttentionRequest, term by term."""
    i = torch.arange(queries)[None, :, None] + case["q_offset"]
    j = torch.arange(keys)[None, None, :]
    visible = torch.ones(batch, queries, keys, dtype=torch.bool)
    if case["causal"]:
        prefix = torch.tensor(case.get("prefix_lengths", [0] * batch))[:, None, None]
        visible &= (j <= i) | (j < prefix)
    if "window_left" in case:
        visible &= i - j <= case["window_left"]
    if "window_right" in case:
        visible &= j - i <= case["window_right"]
    return visible


def write(folder, name, config, tensors, expected, in_fp32):
    tensors = {**tensors, "o": expected.float()}
    config = {
        "scale": 1.0,
        "lengths": None,
        "max_abs_o": expected.abs().max().item(),
        "max_abs_error_vs_f64": {"torch_fp32": (in_fp32.double() - expected).abs().max().item()},
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}",
        **config,
    }
    path = pathlib.Path(folder) / f"mask_{name}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, {"config": json.dumps(config)})
    print(path.name, path.stat().st_size, "bytes")


def make(folder, name, batch, heads, queries, keys, key_bias=None, **case):
    torch.manual_seed(len(name) * 7919 + queries)
    case = {"num_buckets": 32, "max_distance": 128, "bidirectional": not case["causal"], **case}
    case.setdefault("q_offset", keys - queries)
    q, k, v = (torch.randn(batch, heads, rows, DIM) for rows in (queries, keys, keys))
    table = torch.randn(case["num_buckets"], heads)
    bias = table_bias(table, case, queries, keys, case["q_offset"])[None].expand(batch, -1, -1, -1)
    tensors = {"q": q, "k": k, "v": v, "relative_attention_bias.weight": table}
    if key_bias is not None:
        tensors["key_bias"] = key_bias
        bias = bias + key_bias.double()[None, :, None, :]
    visible = seen(case, batch, queries, keys)[:, None]
    assert visible.any(-1).all(), "PyTorch has no answer for a row that sees nothing"
    logits = q.double() @ k.double().transpose(2, 3) + bias
    case["max_abs_logit"] = logits[visible.expand_as(logits)].abs().max().item()
    mask = bias.masked_fill(~visible, float("-inf"))
    expected = scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=mask, scale=1.0)
    in_fp32 = scaled_dot_product_attention(q, k, v, attn_mask=mask.float(), scale=1.0)
    write(folder, name, case, tensors, expected, in_fp32)


def make_longt5(folder, radius=7, length=61, heads=2):
    """Its projections are identities, so that q, k and v are what it is given."""
    torch.manual_seed(5)
    config = LongT5Config(
        d_model=heads * DIM, d_kv=DIM, num_heads=heads, local_radius=radius, dropout_rate=0.0, is_decoder=False
    )
    layer = LongT5LocalAttention(config, has_relative_attention_bias=True).double().eval()
    with torch.no_grad():
        for projection in (layer.q, layer.k, layer.v, layer.o):
            projection.weight.copy_(torch.eye(heads * DIM))
        layer.relative_attention_bias.weight.copy_(torch.randn(config.relative_attention_num_buckets, heads).float())
        hidden = torch.randn(1, length, heads * DIM)
        mask = _get_local_attention_mask(torch.ones(1, length), radius + 1, torch.device("cpu"))
        output = layer(hidden.double(), mask=mask)[0]
        in_fp32 = layer.float()(hidden, mask=mask)[0]
    split = lambda x: x.view(1, length, heads, DIM).transpose(1, 2)  # noqa: E731
    table = layer.relative_attention_bias.weight.detach().float()
    case = {
        "num_buckets": config.relative_attention_num_buckets,
        "max_distance": config.relative_attention_max_distance,
        "bidirectional": True,
        "causal": False,
        "q_offset": 0,
        "window_left": radius,
        "window_right": radius,
    }
    x = split(hidden)
    case["max_abs_logit"] = (x.double() @ x.double().transpose(2, 3)).abs().max().item()
    tensors = {"q": x, "k": x.clone(), "v": x.clone(), "relative_attention_bias.weight": table}
    write(folder, "longt5_local", case, tensors, split(output), split(in_fp32))


def main():
    (folder,) = sys.argv[1:]
    make(folder, "window_left", 1, 2, 150, 150, causal=True, window_left=15)
    make(folder, "window_both", 2, 2, 60, 90, causal=False, window_left=11, window_right=4, q_offset=9)
    make(folder, "window_decode", 2, 2, 2, 300, causal=True, window_left=63)
    make(folder, "window_of_one", 1, 1, 40, 40, causal=True, window_left=0)
    make(folder, "prefix", 3, 2, 70, 70, causal=True, prefix_lengths=[0, 33, 70])
    make(folder, "prefix_in_a_window", 2, 2, 70, 70, causal=True, prefix_lengths=[20, 64], window_left=30, window_right=9)
    # [batch * heads, 1, keys], of 0, 1, 2, ... times the heads' slopes.
    alibi = build_alibi_tensor(torch.ones(1, 90), 4, torch.float32).view(4, 90)
    make(folder, "falcon_alibi", 1, 4, 40, 90, key_bias=alibi, causal=True)
    make_longt5(folder)


if __name__ == "__main__":
    main()
