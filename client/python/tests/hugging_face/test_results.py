"""Attached models give what they gave before."""

from __future__ import annotations

import os
import pathlib
from typing import Any, Iterator

import pytest

import attnd
import attnd.transformers
from conftest import Server

from .libraries import torch, transformers
from .models import FAMILIES, by_eager, check_as_good_as_eager, kept, largest, make, padded, run

GREEDY = {"max_new_tokens": 6, "do_sample": False, "decoder_start_token_id": 0}
PADDINGS = ("none", "right", "left", "holes")


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family(client: attnd.Client, family: str, padding: str) -> None:
    model = make(family)
    inputs = padded(3, 60, padding)
    with attnd.transformers.attach(model, client, min_length=0):
        found = run(model, inputs)
    check_as_good_as_eager(found, model, inputs)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["T5", "umT5"])
def test_half_precision(client: attnd.Client, family: str, dtype: str, padding: str) -> None:
    model = make(family).to(getattr(torch, dtype))
    inputs = padded(3, 60, padding)
    with attnd.transformers.attach(model, client, min_length=0):
        found = run(model, inputs)
    assert found.dtype is getattr(torch, dtype)
    check_as_good_as_eager(found, model, inputs)


@pytest.mark.parametrize("length", [1, 2, 17, 129, 300])
def test_lengths(client: attnd.Client, length: int) -> None:
    model = make("T5")
    inputs = padded(2, length, "none")
    with attnd.transformers.attach(model, client, min_length=0):
        check_as_good_as_eager(run(model, inputs), model, inputs)


@pytest.mark.parametrize("checkpoint", ["t5_fp32", "t5_old_config", "t5_bf16", "mt5_bf16", "umt5_fp32"])
def test_checkpoints(client: attnd.Client, golden: pathlib.Path, checkpoint: str) -> None:
    kind = {"t": "T5EncoderModel", "m": "MT5EncoderModel", "u": "UMT5EncoderModel"}[checkpoint[0]]
    model = getattr(transformers, kind).from_pretrained(golden / "checkpoints" / checkpoint).eval()
    inputs = padded(3, 80, "left")
    with attnd.transformers.attach(model, client, min_length=0):
        check_as_good_as_eager(run(model, inputs), model, inputs)


@pytest.mark.skipif(not os.environ.get("ATTND_TRAINED_T5"), reason="ATTND_TRAINED_T5 names no trained checkpoint")
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trained_checkpoint(client: attnd.Client, dtype: str, padding: str) -> None:
    path = os.environ["ATTND_TRAINED_T5"]
    model = transformers.T5ForConditionalGeneration.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
    inputs = padded(3, 400, padding)
    with attnd.transformers.attach(model, client, min_length=0):
        check_as_good_as_eager(run(model, inputs), model, inputs)


@pytest.mark.parametrize("family", ["T5 with decoder", "umT5 with decoder", "Switch with decoder"])
def test_the_decoder_stays_local_and_the_whole_model_agrees(client: attnd.Client, family: str) -> None:
    model = make(family)
    inputs = {**padded(3, 60, "left"), "decoder_input_ids": torch.randint(2, 128, (3, 9))}
    with torch.inference_mode():
        before = model(**inputs).logits
        with attnd.transformers.attach(model, client, min_length=0, decoder=False) as handle:
            found = model(**inputs).logits
            assert "decoder: stays local" in str(handle)
            tokens = model.generate(**padded(2, 60, "right"), **GREEDY, num_beams=2)
        expected = model.generate(**padded(2, 60, "right"), **GREEDY, num_beams=2)
    assert largest(found - before) <= 1e-4 * largest(before)
    assert torch.equal(tokens, expected)


def test_a_static_cache_of_the_decoder_is_served_locally(client: attnd.Client) -> None:
    model = make("T5 with decoder")
    settings = {**GREEDY, "cache_implementation": "static"}
    inputs = padded(2, 60, "right")
    expected = model.generate(**inputs, **settings)
    with attnd.transformers.attach(model, client, min_length=0, decoder=False):
        assert torch.equal(model.generate(**inputs, **settings), expected)


@pytest.mark.parametrize("context", ["inference_mode", "no_grad"])
def test_contexts(client: attnd.Client, context: str) -> None:
    model = make("T5")
    inputs = padded(2, 40, "holes")
    expected = by_eager(model, inputs)
    with attnd.transformers.attach(model, client, min_length=0):
        for mode in (context, "no_grad", "inference_mode", context):
            with getattr(torch, mode)():
                found = model(**inputs).last_hidden_state
            assert largest((found - expected)[kept(inputs)]) < 1e-4
    with torch.no_grad():
        assert largest((model(**inputs).last_hidden_state - expected)[kept(inputs)]) < 1e-4


def test_embeddings_instead_of_tokens_and_hidden_states_of_every_layer(client: attnd.Client) -> None:
    model = make("T5")
    embeds = torch.randn(2, 50, 64)
    with torch.inference_mode():
        expected = model(inputs_embeds=embeds, output_hidden_states=True).hidden_states
        with attnd.transformers.attach(model, client, min_length=0):
            found = model(inputs_embeds=embeds, output_hidden_states=True).hidden_states
    assert len(found) == len(expected) == 4
    assert all(largest(one - other) < 1e-4 for one, other in zip(found, expected))


def test_a_sequence_without_tokens_leaves_the_others_alone(client: attnd.Client) -> None:
    model = make("T5")
    inputs = padded(3, 40, "right")
    inputs["attention_mask"][1] = 0
    with attnd.transformers.attach(model, client, min_length=0):
        check_as_good_as_eager(run(model, inputs), model, inputs)


def test_by_tcp(server: Server) -> None:
    model = make("umT5")
    inputs = padded(3, 60, "holes")
    with attnd.transformers.attach(model, server.tcp, min_length=0) as handle:
        assert handle.transport == "grpc"
        check_as_good_as_eager(run(model, inputs), model, inputs)


def test_autocast(client: attnd.Client) -> None:
    model = make("T5")
    inputs = padded(2, 40, "right")
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(**inputs).last_hidden_state
        with attnd.transformers.attach(model, client, min_length=0):
            found = model(**inputs).last_hidden_state
    truth = by_eager(model, inputs)
    assert largest(found - truth) <= 2 * largest(expected - truth)


def test_the_comparison_sees_a_wrong_table(client: attnd.Client) -> None:
    model = make("T5")
    inputs = padded(2, 60, "right")
    with attnd.transformers.attach(model, client, min_length=0):
        found = run(model, inputs)
    with torch.no_grad():
        model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight[20] += 0.01
    with pytest.raises(AssertionError):
        check_as_good_as_eager(found, model, inputs)


def wrong_masks(inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    mask = inputs["attention_mask"]
    yield {"input_ids": inputs["input_ids"]}
    yield {**inputs, "attention_mask": mask.roll(1, dims=1)}


@pytest.mark.parametrize("padding", ["right", "left", "holes"])
def test_the_comparison_sees_a_wrong_mask(client: attnd.Client, padding: str) -> None:
    model = make("T5")
    inputs = padded(3, 60, padding)
    with attnd.transformers.attach(model, client, min_length=0):
        for wrong in wrong_masks(inputs):
            with pytest.raises(AssertionError):
                check_as_good_as_eager(run(model, wrong), model, inputs)
