"""Runs a Hugging Face T5's generate() in several ways, for hf_generate.py: answers lines of JSON on standard input.

The model has T5-small's shape and random weights. Ways: "eager" and "sdpa" are transformers' own, "free" has attention
at no cost, "local" and "tcp" are attnd, by the local socket and by TCP, with what attach() finds for itself.
{"run": WAY, "batch": B, "tokens": N, "beams": M, "new": T} gives times and tokens, {"memory": WAY, ...} what keys and
values take in a process that runs nothing else.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pathlib
import statistics
import sys
import time
from typing import Any, Callable

import hf_generate_floor
import hf_worker
import torch
import transformers
from transformers import LogitsProcessor, LogitsProcessorList, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

import attnd
import attnd.transformers

MIB = 1 << 20


def make_model() -> Any:
    """Its logits are no function of the last token alone, as those of tied weights are, and its cross attention is
    sharper than random weights make it: tokens then depend on each source and on all tokens before them."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32128,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config).eval()
    model.lm_head.weight = torch.nn.Parameter(3.4 * torch.randn(model.lm_head.weight.shape))
    for block in model.decoder.block:
        block.layer[1].EncDecAttention.q.weight.data *= 4
    return model


class Clock(LogitsProcessor):
    """Notes when each step's logits are there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, ids: Any, scores: Any) -> Any:
        self.times.append(time.perf_counter())
        return scores


class Watch(LogitsProcessor):
    """Asks the server at each step what its sessions for cross attention hold, those that have sources."""

    def __init__(self, client: attnd.Client) -> None:
        self._client = client
        self.used = self.reserved = 0

    def __call__(self, ids: Any, scores: Any) -> Any:
        sessions = [each for each in self._client.list_sessions() if each.sources > 0]
        self.used = max(self.used, sum(each.used_bytes for each in sessions))
        self.reserved = max(self.reserved, sum(each.reserved_bytes for each in sessions))
        return scores


class Ways:
    """The model once for each way, made when it is first asked for; all have the same weights in memory."""

    def __init__(self, targets: dict[str, str]) -> None:
        self._targets = targets
        self._model = make_model()
        self._made: dict[str, Any] = {}
        self.floor: Any = None
        self.clients: dict[str, attnd.Client] = {}

    def get(self, way: str) -> Any:
        if way not in self._made:
            self._made[way] = self._make(way)
        return self._made[way]

    def _make(self, way: str) -> Any:
        model = copy.deepcopy(self._model, {id(weights): weights for weights in self._model.parameters()})
        if way in ("eager", "sdpa"):
            model.set_attn_implementation(way)
        elif way == "free":
            self.floor = hf_generate_floor.Floor(model)
        else:
            client = attnd.Client(self._targets[way])
            self.clients[way] = client
            handle = attnd.transformers.attach(model, client)
            print(f"{way}: {handle}", file=sys.stderr)
            expected = {"local": "local", "tcp": "grpc"}[way]
            if handle.transport != expected:
                sys.exit(f"{way}: calls go by {handle.transport!r}, expected {expected!r}")
        return model

    def generate(self, way: str, beams: int, new: int, watch: Any, **arguments: Any) -> Any:
        model = self.get(way)
        if way == "free":
            self.floor.beams = beams
            arguments.update(self.floor.options())
        return model.generate(
            max_new_tokens=new,
            min_new_tokens=new,
            num_beams=beams,
            do_sample=False,
            logits_processor=LogitsProcessorList([watch]),
            **arguments,
        )

    def close(self) -> None:
        for way, client in self.clients.items():
            attnd.transformers.detach(self._made[way])
            client.close()


def run(ways: Ways, way: str, batch: int, tokens: int, beams: int, new: int) -> dict[str, Any]:
    """Milliseconds of one call, of which the encoder's and each step's; the tokens that it made."""
    ids = hf_worker.inputs(batch, tokens)
    clock, encoded = Clock(), []
    hook = ways.get(way).encoder.register_forward_hook(lambda *_: encoded.append(time.perf_counter()))
    start = time.perf_counter()
    made = ways.generate(way, beams, new, clock, input_ids=ids, attention_mask=torch.ones_like(ids))
    end = time.perf_counter()
    hook.remove()
    steps = [(after - before) * 1e3 for before, after in zip([*encoded, *clock.times], clock.times)]
    found = {"whole_ms": (end - start) * 1e3, "decode_ms": (end - encoded[0]) * 1e3, "first_ms": steps[0]}
    if new > 1:
        found["step_ms"] = statistics.median(steps[1:])
    return {**found, "tokens": made[:, 1:].tolist()}


def held_bytes(cache: Any) -> int:
    """What the tensors of a cache keep in memory, each once."""
    storages = {}
    for layer in cache.layers:
        try:
            tensors = (layer.keys, layer.values)
        except attnd.transformers.Refused:  # attnd's has none
            continue
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def memory(ways: Ways, way: str, batch: int, tokens: int, beams: int, new: int) -> dict[str, float]:
    """MiB that decoding takes: for cross attention in the cache and in the server's sessions, and of this process in
    all above what it had before. The encoder is left out."""

    def decode(batch: int, tokens: int, watch: Any) -> Any:
        hidden = torch.randn(batch, tokens, 512, generator=torch.Generator().manual_seed(1))
        mask = torch.ones(batch, tokens, dtype=torch.long)
        encoded = BaseModelOutput(last_hidden_state=hidden)
        return ways.generate(
            way, beams, new, watch, encoder_outputs=encoded, attention_mask=mask, return_dict_in_generate=True
        )

    decode(1, 8, Clock())
    watch: Any = Watch(ways.clients[way]) if way in ways.clients else Clock()
    before = hf_worker.resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    cache = getattr(decode(batch, tokens, watch), hf_generate_floor.cache_name(ways.get(way)))
    found = {
        "peak_mib": hf_worker.resident("VmHWM") - before,
        "cache_mib": held_bytes(cache.cross_attention_cache) / MIB,
    }
    if way in ways.clients:
        found.update(used_mib=watch.used / MIB, reserved_mib=watch.reserved / MIB)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--local", required=True, help="target of a server's Unix socket")
    parser.add_argument("--tcp", required=True, help="target of its TCP port")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    ways = Ways({"local": options.local, "tcp": options.tcp})
    commands: dict[str, Callable[..., Any]] = {"run": run, "memory": memory}
    with torch.inference_mode():
        for line in sys.stdin:
            asked = json.loads(line)
            (command,) = set(asked) & set(commands)
            print(json.dumps(commands[command](ways, asked.pop(command), **asked)), flush=True)
    ways.close()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
