#!/usr/bin/env python3
"""Writes tests/golden/alibi/slopes.json: ALiBi's slopes for many numbers of heads, by Hugging Face's own code.

usage: make_alibi_slopes.py OUTPUT        needs torch and transformers
"""
import json
import sys

import torch
import transformers
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

HEADS = [*range(1, 21), 24, 32, 40, 71, 112]


def of_bloom(heads):
    """The alibi of a second key is the slope; float32."""
    alibi = build_alibi_tensor(torch.ones(1, 2, dtype=torch.long), heads, torch.float32)
    return alibi.reshape(heads, 2)[:, 1].tolist()


def of_mpt(heads):
    """Distances are -1 and 0; the first is minus the slope."""
    return (-build_mpt_alibi_tensor(heads, 2).reshape(heads, 2)[:, 0]).tolist()


def main():
    golden = {
        "by": f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}",
        "slopes": [{"heads": heads, "bloom": of_bloom(heads), "mpt": of_mpt(heads)} for heads in HEADS],
    }
    rows = ",\n".join(json.dumps(row) for row in golden["slopes"])
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write(f'{{"by": "{golden["by"]}", "slopes": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
