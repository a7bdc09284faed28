"""Runs a Hugging Face T5 encoder in several ways, in turns, for hf_bench.py: answers lines of JSON on standard input.

The model has T5-small's shape (6 layers, 8 heads of 64) and random weights. Ways: "eager" and "sdpa" are transformers'
own, "free" has no attention at all (the floor under any replacement), "local" and "tcp" are attnd, by the local socket
and by TCP. {"run": WAYS, "batch": B, "tokens": N} runs each once and gives milliseconds, {"memory": WAY, ...} the peak
of a process that runs nothing else.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pathlib
import sys
import time
from typing import Any, Callable

import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface, T5Config, T5EncoderModel

import attnd
import attnd.transformers

LAYERS, HEADS = 6, 8
VOCABULARY = 512


class CountingClient(attnd.Client):
    """Adds up the server's compute time."""

    computed_ms = 0.0

    def compute(self, *arguments: Any, **options: Any) -> attnd.ComputeReply:
        reply = super().compute(*arguments, **options)
        self.computed_ms += reply.compute_time * 1e3
        return reply


def make_model() -> Any:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=512, d_kv=64, d_ff=2048, num_layers=LAYERS, num_heads=HEADS, dropout_rate=0.0
    )
    return T5EncoderModel(config).eval()


def without_attention(model: Any) -> Any:
    def free(module: Any, query: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        return query.transpose(1, 2), None

    AttentionInterface.register("free", free)
    AttentionMaskInterface.register("free", lambda *_, **__: None)
    model.set_attn_implementation("free")
    layer = model.encoder.block[0].layer[0].SelfAttention
    nothing = torch.zeros(())
    layer.compute_bias = lambda queries, keys, **_: nothing.expand(1, HEADS, queries, keys)
    return model


class Ways:
    """The model once for each way, made when it is first asked for."""

    def __init__(self, targets: dict[str, str]) -> None:
        self._targets = targets
        self._model = make_model()
        self._made: dict[str, Any] = {}
        self.clients: dict[str, CountingClient] = {}

    def get(self, way: str) -> Any:
        if way not in self._made:
            self._made[way] = self._make(way)
        return self._made[way]

    def _make(self, way: str) -> Any:
        model = copy.deepcopy(self._model)
        if way in ("eager", "sdpa"):
            model.set_attn_implementation(way)
        elif way == "free":
            without_attention(model)
        else:
            client = CountingClient(self._targets[way])
            self.clients[way] = client
            handle = attnd.transformers.attach(model, client, min_length=0)
            expected = {"local": "local", "tcp": "grpc"}[way]
            if handle.transport != expected:
                sys.exit(f"{way}: calls go by {handle.transport!r}, expected {expected!r}")
        return model

    def close(self) -> None:
        for way, client in self.clients.items():
            attnd.transformers.detach(self._made[way])
            client.close()


def inputs(batch: int, tokens: int) -> Any:
    return torch.randint(2, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(1))


def run(ways: Ways, names: list[str], batch: int, tokens: int) -> dict[str, dict[str, float]]:
    """Milliseconds of one pass of each way, and for attnd what the server computed of them."""
    ids = inputs(batch, tokens)
    found: dict[str, dict[str, float]] = {}
    for name in names:
        model = ways.get(name)
        client = ways.clients.get(name)
        before = client.computed_ms if client else 0.0
        start = time.perf_counter()
        model(input_ids=ids)
        found[name] = {"ms": (time.perf_counter() - start) * 1e3}
        if client:
            found[name]["computed_ms"] = client.computed_ms - before
    return found


def difference(ways: Ways, name: str, batch: int, tokens: int) -> float:
    """The largest from eager's hidden states."""
    ids = inputs(batch, tokens)
    expected = ways.get("eager")(input_ids=ids).last_hidden_state
    return float((ways.get(name)(input_ids=ids).last_hidden_state - expected).abs().max())


def resident(field: str) -> float:
    """MiB of this process: VmHWM is the peak since the last reset, VmRSS what it has now."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(field)


def memory(ways: Ways, name: str, batch: int, tokens: int) -> dict[str, float]:
    """What a pass takes above what the process had with its weights after a pass of 8 tokens."""
    model = ways.get(name)
    model(input_ids=inputs(1, 8))
    before = resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    model(input_ids=inputs(batch, tokens))
    return {"mib": resident("VmHWM") - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--local", required=True, help="target of a server's Unix socket")
    parser.add_argument("--tcp", required=True, help="target of its TCP port")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    ways = Ways({"local": options.local, "tcp": options.tcp})
    commands: dict[str, Callable[..., Any]] = {"run": run, "memory": memory, "difference": difference}
    with torch.inference_mode():
        for line in sys.stdin:
            asked = json.loads(line)
            batch, tokens = asked.pop("batch"), asked.pop("tokens")
            ((command, names),) = asked.items()
            print(json.dumps(commands[command](ways, names, batch, tokens)), flush=True)
    ways.close()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
