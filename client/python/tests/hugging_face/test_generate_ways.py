"""The ways of generating, attached and not: the same tokens."""

from __future__ import annotations

import contextlib
import copy
import gc
from typing import Any

import pytest

import attnd
import attnd.transformers

from .generating import (
    BEAMS,
    CACHE,
    GREEDY,
    NEVER,
    Watch,
    await_no_sessions,
    check_same,
    generate,
    generate_by,
    implementation,
    make_decoder,
    sources,
)
from .libraries import torch, transformers

# From which number of cached tokens on the self attention is remote.
remote_from = pytest.mark.parametrize("tokens", [0, 30, NEVER])


SAMPLING: dict[str, Any] = {"do_sample": True, "max_new_tokens": 12, "temperature": 1.5, "top_k": 30}
WAYS: dict[str, dict[str, Any]] = {
    "sampling": SAMPLING,
    "sampling by top_p": {**SAMPLING, "top_p": 0.9, "typical_p": 0.9},
    "samples of each": {**SAMPLING, "num_return_sequences": 3},
    "beams, all of them": {**BEAMS, "num_return_sequences": 4},
    "beams, two of them": {**BEAMS, "num_return_sequences": 2, "length_penalty": 0.5, "early_stopping": True},
    "sampled beams": {**SAMPLING, "num_beams": 3, "num_return_sequences": 2},
    "many beams": {**GREEDY, "num_beams": 9},
    "one token": {**GREEDY, "max_new_tokens": 1, "min_new_tokens": 1},
    "one token of beams": {**BEAMS, "max_new_tokens": 1, "min_new_tokens": 1},
    "two tokens of beams": {**BEAMS, "max_new_tokens": 2, "min_new_tokens": 2},
    "a penalty": {**GREEDY, "repetition_penalty": 1.5},
    "a forced end": {**BEAMS, "forced_eos_token_id": 1},
    "words that are not said": {**BEAMS, "bad_words_ids": [[94], [102, 75]]},
    "a maximum length": {"do_sample": False, "max_length": 14, "no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("tokens", [0, 30])
@pytest.mark.parametrize("way", WAYS)
def test_ways(client: attnd.Client, way: str, tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    check_same(model, client, inputs, {"min_cached_tokens": tokens}, seed=1, **WAYS[way])


def test_a_sampled_token_depends_on_the_seed() -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    found = [generate(model, inputs, seed=seed, **SAMPLING) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def prompts(padding: str) -> dict[str, Any]:
    """Three beginnings of the decoder's text of up to nine tokens; "right" and "holes" are what nobody should do."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(2, 128, (3, 9), generator=generator)
    ids[:, 0] = 0
    if padding == "none":
        return {"decoder_input_ids": ids}
    mask = torch.ones_like(ids)
    for row in (1, 2):
        if padding == "left":
            mask[row, : 2 * row] = 0
        elif padding == "right":
            mask[row, -2 * row :] = 0
        else:
            mask[row, 2::3] = 0
    return {"decoder_input_ids": ids * mask, "decoder_attention_mask": mask}


@remote_from
@pytest.mark.parametrize("padding", ["none", "left", "right", "holes"])
@pytest.mark.parametrize("family", ["T5", "umT5"])
def test_prompts_for_the_decoder(client: attnd.Client, family: str, padding: str, tokens: int) -> None:
    model, inputs = make_decoder(family), {**sources(family, 3, 40, "left"), **prompts(padding)}
    without = {**inputs, "decoder_attention_mask": torch.ones(3, 9, dtype=torch.long)}
    other = generate(model, without, **GREEDY)
    assert padding == "none" or not torch.equal(generate(model, inputs, **GREEDY), other)  # the mask matters
    if tokens > 0:
        with implementation(model, "eager"):
            expected = generate(model, inputs, **GREEDY)
        if not torch.equal(generate(model, inputs, **GREEDY), expected):
            pytest.skip("transformers 5.15 computes it wrongly by sdpa, and so does the part that is local")
    for settings in (GREEDY, BEAMS):
        check_same(model, client, inputs, {"min_cached_tokens": tokens}, **settings)


def test_long_prompts_for_the_decoder(client: attnd.Client) -> None:
    """Longer than a page of the server's, which has 64 tokens."""
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    ids = torch.randint(2, 128, (3, 150), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[1, :70], mask[2, :3] = 0, 0
    ids[0, 0] = 0
    inputs = {**inputs, "decoder_input_ids": ids * mask, "decoder_attention_mask": mask}
    for settings in (GREEDY, BEAMS):
        check_same(model, client, inputs, **settings)


@remote_from
@pytest.mark.parametrize("settings", [GREEDY, BEAMS, {**SAMPLING, "num_return_sequences": 3}])
def test_the_encoders_output_given(client: attnd.Client, settings: dict[str, Any], tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    with torch.inference_mode():
        states = model.get_encoder()(**inputs).last_hidden_state

    def given() -> dict[str, Any]:
        # generate writes into it.
        output = transformers.modeling_outputs.BaseModelOutput(last_hidden_state=states)
        return {"encoder_outputs": output, "attention_mask": inputs["attention_mask"]}

    expected = generate(model, inputs, **settings)
    assert torch.equal(generate(model, given(), **settings), expected)
    found, watch = generate_by(model, client, given(), {"min_cached_tokens": tokens}, **settings)
    assert torch.equal(found, expected)
    assert watch.sources == 3


def test_embeddings_of_the_source(client: attnd.Client) -> None:
    model = make_decoder("T5")
    inputs = sources("T5", 3, 40, "holes")
    with torch.no_grad():
        given = {"inputs_embeds": model.shared(inputs.pop("input_ids")), **inputs}
    for settings in (GREEDY, BEAMS):
        check_same(model, client, given, **settings)


def test_without_a_cache(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    for settings in (GREEDY, BEAMS):
        expected = generate(model, inputs, use_cache=False, **settings)
        assert torch.equal(expected, generate(model, inputs, **settings))
        found, _ = generate_by(model, client, inputs, use_cache=False, **settings)
        assert torch.equal(found, expected)
    await_no_sessions(client)


class Collected:
    """What a streamer gets."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = 0

    def put(self, value: Any) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("settings", [GREEDY, SAMPLING])
def test_streamers(client: attnd.Client, settings: dict[str, Any]) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 1, 40, "none")
    streamer = Collected()
    expected = generate(model, inputs, **settings)
    found, watch = generate_by(model, client, inputs, streamer=streamer, **settings)
    assert watch.steps > 0
    assert streamer.tokens == found[0].tolist() == expected[0].tolist()
    assert streamer.ended == 1


def noisy(model: Any, amount: float) -> Any:
    """Another model that often says the same."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + amount * torch.randn(parameter.shape, generator=generator))
    return other


class Widths:
    """How many tokens each pass of the decoder has."""

    def __init__(self, model: Any) -> None:
        self.seen: list[int] = []
        self._hook = model.get_output_embeddings().register_forward_hook(
            lambda _, arguments, __: self.seen.append(arguments[0].shape[1])
        )

    def close(self) -> None:
        self._hook.remove()


ASSISTED: dict[str, Any] = {"do_sample": False, "max_new_tokens": 40, "min_new_tokens": 40}


@pytest.mark.parametrize("tokens", [0, 30])
@pytest.mark.parametrize(
    ("amount", "attached"), [(0.003, "both"), (0.2, "both"), (0.003, "the model"), (0.003, "the assistant")]
)
def test_assisted(client: attnd.Client, amount: float, attached: str, tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 1, 40, "none")
    assistant = noisy(model, amount)
    plain = generate(model, inputs, **ASSISTED)
    expected = generate(model, inputs, **ASSISTED, assistant_model=assistant)
    assert torch.equal(expected, plain)
    watch, widths = Watch(client), Widths(model)
    with contextlib.ExitStack() as stack, contextlib.closing(widths):
        for each in {"both": (model, assistant), "the model": (model,), "the assistant": (assistant,)}[attached]:
            stack.enter_context(attnd.transformers.attach(each, client, min_length=0, min_cached_tokens=tokens))
        found = generate(model, inputs, **ASSISTED, assistant_model=assistant, logits_processor=[watch])
    assert torch.equal(found, expected)
    assert watch.steps > 0
    assert watch.most >= (2 if attached == "both" else 1)
    assert max(widths.seen) > 1  # candidates were checked together
    assert sum(widths.seen) > 40  # and some were thrown away


@remote_from
def test_lookups_in_the_prompt(client: attnd.Client, tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 1, 40, "none")
    inputs["decoder_input_ids"] = torch.tensor([[0, *([17, 99, 23, 54] * 4)]])
    settings = {**ASSISTED, "prompt_lookup_num_tokens": 3}
    expected = generate(model, inputs, **settings)
    assert torch.equal(expected, generate(model, inputs, **ASSISTED))
    widths, watch = Widths(model), Watch(client)
    with contextlib.closing(widths), attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=tokens):
        found = generate(model, inputs, **settings, logits_processor=[watch])
    assert torch.equal(found, expected)
    assert watch.steps > 0
    assert max(widths.seen[1:]) > 1


def in_pieces(model: Any, inputs: dict[str, Any], pieces: list[int], masked: bool, **options: Any) -> Any:
    """Generates so many tokens each time, and goes on with the cache of the last time.

    Without the mask, transformers takes all of decoder_input_ids for new ones.
    """
    more: dict[str, Any] = {"encoder_outputs": model.get_encoder()(**inputs)}
    for count in pieces:
        settings = {**GREEDY, "max_new_tokens": count, "min_new_tokens": count, "return_dict_in_generate": True}
        out = generate(model, {**more, "attention_mask": inputs["attention_mask"]}, **settings, **options)
        more.update({"decoder_input_ids": out.sequences, CACHE: getattr(out, CACHE)})
        if masked:
            more["decoder_attention_mask"] = torch.ones_like(out.sequences)
    return out.sequences


@remote_from
@pytest.mark.parametrize("masked", [True, False])
def test_continued_generation(client: attnd.Client, masked: bool, tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    pieces = [5, 1, 62, 3]
    with torch.inference_mode():
        with implementation(model, "eager"):
            expected = in_pieces(model, inputs, pieces, masked)
            at_once = {**GREEDY, "max_new_tokens": sum(pieces), "min_new_tokens": sum(pieces)}
            assert torch.equal(expected, generate(model, inputs, **at_once)) is masked
        watch = Watch(client)
        with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=tokens):
            found = in_pieces(model, inputs, pieces, masked, logits_processor=[watch])
            assert torch.equal(found, expected)
            assert watch.steps > 0
            await_no_sessions(client)  # it goes with the cache, which nobody has any more


@remote_from
@pytest.mark.parametrize("count", [9, 60])
def test_the_new_tokens_alone_go_on(client: attnd.Client, count: int, tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")

    def two_calls(**options: Any) -> Any:
        settings = {"do_sample": False, "min_new_tokens": 9, "return_dict_in_generate": True, **options}
        first = generate(model, inputs, **settings, max_new_tokens=9)
        more = {**inputs, "decoder_input_ids": first.sequences[:, -1:], CACHE: getattr(first, CACHE)}
        # A start that is there is not put before it.
        more["decoder_start_token_id"] = int(first.sequences[0, -1])
        return generate(model, more, **{**settings, "min_new_tokens": count}, max_new_tokens=count).sequences

    with implementation(model, "eager"):
        expected = two_calls()
    watch = Watch(client)
    with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=tokens):
        assert torch.equal(two_calls(logits_processor=[watch]), expected)
    assert watch.steps > 0


def test_a_session_lives_as_long_as_the_cache_that_generate_gives(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=0):
        out = generate(model, inputs, **GREEDY, return_dict_in_generate=True)
        assert getattr(out, CACHE).get_seq_length() == GREEDY["max_new_tokens"]
        gc.collect()
        assert client.list_sessions()
        del out
        await_no_sessions(client)


def test_several_models_in_turns(client: attnd.Client) -> None:
    """Two that are attached to one server, one token of each after the other."""
    models = [make_decoder("T5"), make_decoder("umT5")]
    inputs = sources("T5", 2, 40, "left")
    expected = [generate(model, inputs, **GREEDY) for model in models]

    class Other:
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if input_ids.shape[1] == 6:
                found.append(generate(models[1], inputs, **GREEDY))
                found.append(generate(models[0], inputs, **GREEDY))
            return scores

    found: list[Any] = []
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=0))
        assert torch.equal(generate(models[0], inputs, **GREEDY, logits_processor=[Other()]), expected[0])
    assert torch.equal(found[0], expected[1])
    assert torch.equal(found[1], expected[0])
