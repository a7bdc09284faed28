"""The same encoder as hf_worker.py's in CTranslate2, in fp32: answers {"batch": B, "tokens": N} with milliseconds.

CTranslate2 converts T5 with its decoder only; the encoder alone is made of the same loader's pieces, as its encoder-only
models are. Before anything is timed its hidden states are compared with eager's.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
import time
from typing import Any

import ctranslate2
import hf_worker
import numpy as np
import torch
from ctranslate2.converters import transformers as loaders
from ctranslate2.specs import transformer_spec

# Hidden states are of size 1 to 10.
MOST_DIFFERENCE = 1e-3


def convert(model: Any, folder: pathlib.Path) -> None:
    config = model.config
    encoder = transformer_spec.TransformerEncoderSpec(
        config.num_layers,
        config.num_heads,
        pre_norm=True,
        activation=loaders._SUPPORTED_ACTIVATIONS[config.dense_act_fn],
        ffn_glu=config.is_gated_act,
        relative_attention_bias=True,
        rms_norm=True,
    )
    spec = transformer_spec.TransformerEncoderModelSpec(encoder)
    loaders.T5Loader().set_stack(spec.encoder, model.encoder)
    spec.register_vocabulary([f"token{i}" for i in range(config.vocab_size)])
    spec.config.unk_token = "token0"
    spec.config.bos_token = "token1"
    spec.config.eos_token = "token1"
    spec.validate()
    spec.optimize(quantization="float32")
    spec.save(str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    threads = parser.parse_args().threads
    model = hf_worker.make_model()
    with tempfile.TemporaryDirectory() as folder:
        convert(model, pathlib.Path(folder))
        encoder = ctranslate2.Encoder(folder, "cpu", compute_type="float32", intra_threads=threads, inter_threads=1)

    def run(ids: list[list[int]]) -> Any:
        return encoder.forward_batch(ids).last_hidden_state

    ids = hf_worker.inputs(2, 200)
    with torch.inference_mode():
        expected = model(input_ids=ids).last_hidden_state.numpy()
    found = float(np.abs(np.array(run(ids.tolist())) - expected).max())
    if not found <= MOST_DIFFERENCE:
        sys.exit(f"its hidden states differ from Hugging Face's by {found:.2g}")
    for line in sys.stdin:
        asked = json.loads(line)
        ids = hf_worker.inputs(asked["batch"], asked["tokens"]).tolist()
        start = time.perf_counter()
        np.array(run(ids))
        print(json.dumps({"ms": (time.perf_counter() - start) * 1e3, "difference": found}), flush=True)


if __name__ == "__main__":
    main()
