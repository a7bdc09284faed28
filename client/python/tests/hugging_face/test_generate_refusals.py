"""What an attached decoder refuses, and what it leaves to the model."""

from __future__ import annotations

from typing import Any

import pytest

import attnd
import attnd.transformers
from attnd.transformers import Refused

from .generating import CACHE, GREEDY, NEVER, await_no_sessions, generate, make_decoder, sources
from .libraries import torch
from .models import largest

remote_from = pytest.mark.parametrize("tokens", [0, NEVER])


def attached(model: Any, client: attnd.Client, tokens: int = 0) -> Any:
    return attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=tokens)


@pytest.mark.parametrize("name", ["min_cached_tokens", "replay_bytes"])
def test_options_are_checked(client: attnd.Client, name: str) -> None:
    options: dict[str, Any] = {name: -1}
    with pytest.raises(attnd.InvalidArgument, match=name):
        attnd.transformers.attach(make_decoder("T5"), client, **options)


def test_output_attentions_is_refused(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    expected = generate(model, inputs, **GREEDY)
    with attached(model, client):
        with pytest.raises(Refused, match="output_attentions"):
            generate(model, inputs, **GREEDY, output_attentions=True, return_dict_in_generate=True)
        with pytest.raises(Refused, match="output_attentions"), torch.inference_mode():
            model(**inputs, decoder_input_ids=torch.zeros(2, 1, dtype=torch.long), output_attentions=True)
        assert torch.equal(generate(model, inputs, **GREEDY), expected)


def given_states(model: Any) -> dict[str, Any]:
    """Inputs of the decoder alone."""
    inputs = sources("T5", 2, 40, "left")
    with torch.no_grad():
        states = model.get_encoder()(**inputs)
    ids = torch.randint(2, 128, (2, 5), generator=torch.Generator().manual_seed(3))
    return {"encoder_outputs": states, "attention_mask": inputs["attention_mask"], "decoder_input_ids": ids}


@remote_from
def test_training_is_refused(client: attnd.Client, tokens: int) -> None:
    model = make_decoder("T5")
    given = given_states(model)
    with attached(model, client, tokens) as handle:
        with pytest.raises(Refused, match="gradients"):
            model(**given, **{CACHE: handle.cache(max_tokens=9)})
        model.train()
        with pytest.raises(Refused, match="dropout"), torch.no_grad():
            model(**given, **{CACHE: handle.cache(max_tokens=9)})
        with pytest.raises(Refused):
            model(**sources("T5", 2, 40, "left"), labels=given["decoder_input_ids"])
    await_no_sessions(client)


def test_gradients_of_the_decoder_alone_are_what_they_were(client: attnd.Client) -> None:
    """It computes by itself, without a cache of attnd's."""
    model = make_decoder("T5")
    given = given_states(model)

    def gradients() -> list[Any]:
        model.zero_grad()
        model(**given, use_cache=False).logits.square().mean().backward()
        return [parameter.grad.clone() for parameter in model.decoder.parameters()]

    expected = gradients()
    with attached(model, client):
        found = gradients()
    assert all(largest(one - other) <= 1e-4 * largest(other) for one, other in zip(found, expected))


def test_a_mask_of_four_dimensions_is_right_or_refused(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    inputs["decoder_input_ids"] = torch.randint(2, 128, (2, 9), generator=torch.Generator().manual_seed(3))
    sees = torch.ones(9, 9).tril().bool()
    sees[4:, 1] = False
    mask = torch.where(sees, 0.0, torch.finfo(torch.float32).min).expand(2, 1, 9, 9)
    with torch.inference_mode():
        expected = model(**inputs, decoder_attention_mask=mask).logits
        with attached(model, client):
            try:
                found = model(**inputs, decoder_attention_mask=mask).logits
            except Refused as refused:
                assert "mask" in refused.field
            else:
                assert largest(found - expected) <= 1e-4 * largest(expected)
