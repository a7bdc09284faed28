"""The trained checkpoint t5-tiny, in the folder ATTND_TRAINED_T5, generates the same tokens with attnd as without."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Iterator

import pytest

import attnd
import attnd.transformers
from conftest import Server

from .generating import Watch, generate, generate_by, implementation
from .libraries import torch, transformers

pytestmark = pytest.mark.skipif(
    not os.environ.get("ATTND_TRAINED_T5"), reason="ATTND_TRAINED_T5 names no trained checkpoint"
)


@pytest.fixture(params=["unix", "tcp"])
def client(request: Any, server: Server) -> Iterator[attnd.Client]:
    with attnd.Client(getattr(server, request.param)) as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Any:
    path = os.environ["ATTND_TRAINED_T5"]
    found = transformers.T5ForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    if found.config.vocab_size != 260:
        pytest.skip("another checkpoint than t5-tiny")
    return found


@pytest.fixture(scope="module")
def said(golden: pathlib.Path) -> list[dict[str, Any]]:
    """Prompts of 64 bytes, each with the 201 tokens that generate() returned for it."""
    found: list[dict[str, Any]] = json.loads((golden / "trained" / "t5-tiny_greedy.json").read_text())
    return found


def ids(prompts: list[str]) -> Any:
    return torch.tensor([list(prompt.encode()) for prompt in prompts]) + 3


@pytest.mark.parametrize("tokens", [0, 150, None])
def test_greedy(client: attnd.Client, model: Any, said: list[dict[str, Any]], tokens: int | None) -> None:
    options = {"min_cached_tokens": tokens}
    settings: dict[str, Any] = {"max_new_tokens": 200, "do_sample": False}
    for prompts in (said, said[:1]):
        inputs = {"input_ids": ids([each["prompt"] for each in prompts])}
        found, watch = generate_by(model, client, inputs, options, **settings)
        assert watch.steps > 0
        assert found.tolist() == [each["tokens"] for each in prompts]


def test_beams_of_prompts_of_several_lengths(client: attnd.Client, model: Any, said: list[dict[str, Any]]) -> None:
    inputs = {"input_ids": ids([each["prompt"] for each in said])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][1, 50:], inputs["attention_mask"][2, :20] = 0, 0
    settings: dict[str, Any] = {"max_new_tokens": 100, "num_beams": 4, "do_sample": False}
    with implementation(model, "eager"):
        expected = generate(model, inputs, **settings)
    found, watch = generate_by(model, client, inputs, **settings)
    assert isinstance(watch, Watch)
    assert watch.steps > 0
    assert torch.equal(found, expected)
