"""generate() of attached models gives the tokens that it gave before, for each family."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest

import attnd
import attnd.transformers
from conftest import Server

from .generating import (
    BEAMS,
    CACHE,
    DECODERS,
    GREEDY,
    LAYERS,
    NEVER,
    await_no_sessions,
    check_same,
    generate,
    generate_by,
    implementation,
    make_decoder,
    sources,
    vary,
)
from .libraries import torch, transformers
from .models import largest, padded, rms

WAYS = {"greedy": GREEDY, "beams": BEAMS}
BATCH = 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("family", "padding"),
    [
        *((family, padding) for family in DECODERS for padding in ("left", "right")),
        *((family, padding) for family in ("T5", "umT5") for padding in ("none", "holes")),
    ],
)
def test_each_family(client: attnd.Client, family: str, way: str, padding: str) -> None:
    model, inputs, settings = make_decoder(family), sources(family, BATCH, 40, padding), WAYS[way]
    with implementation(model, "eager"):
        expected = generate(model, inputs, **settings)
    if padding == "left":
        with implementation(model, "sdpa"):
            assert torch.equal(generate(model, inputs, **settings), expected)
    assert vary(expected), expected.tolist()
    found, watch = generate_by(model, client, inputs, **settings)
    assert torch.equal(found, expected), (found.tolist(), expected.tolist())
    assert 1 <= watch.most <= 2
    assert (watch.sources, watch.rows) == (BATCH, BATCH * settings.get("num_beams", 1))
    # Self and cross attention of each layer, of each token but the last one.
    assert watch.steps >= 2 * LAYERS * (watch.tokens - 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", DECODERS)
def test_self_attention_may_stay_local_at_first_or_for_good(client: attnd.Client, family: str, way: str) -> None:
    model, inputs, settings = make_decoder(family), sources(family, BATCH, 40, "holes"), WAYS[way]
    expected = generate(model, inputs, **settings)
    counts = []
    for tokens in (5 * BATCH * settings.get("num_beams", 1), NEVER):
        found, watch = generate_by(model, client, inputs, {"min_cached_tokens": tokens}, **settings)
        assert torch.equal(found, expected), (tokens, found.tolist(), expected.tolist())
        assert watch.steps >= LAYERS * (watch.tokens - 1)
        counts.append(watch.counts)
    # Sessions after each token: of the cross attention, and later of both.
    assert set(counts[1]) == {1}
    assert sorted(set(counts[0])) == [1, 2]
    assert counts[0] == sorted(counts[0])


def test_longer_than_a_page(client: attnd.Client) -> None:
    """The server keeps 64 tokens together; buckets and beams go on after that."""
    for family, settings, tokens in (("T5", GREEDY, 0), ("T5", BEAMS, 0), ("umT5", BEAMS, 80 * 8)):
        longer = {**settings, "max_new_tokens": 100, "min_new_tokens": 100}
        check_same(
            make_decoder(family), client, sources(family, 2, 70, "right"), {"min_cached_tokens": tokens}, **longer
        )


def test_rows_end_at_different_lengths(client: attnd.Client) -> None:
    ending: dict[str, Any] = {"max_new_tokens": 40, "eos_token_id": list(range(1, 9)), "no_repeat_ngram_size": 2}
    model, inputs = make_decoder("T5"), sources("T5", 4, 40, "left")
    assert len({sum(token != 0 for token in row) for row in generate(model, inputs, **ending).tolist()}) == 4
    ways: list[dict[str, Any]] = [{}, {"num_beams": 3, "early_stopping": True}, {"num_beams": 3}]
    for settings in ways:
        check_same(model, client, inputs, **ending, **settings)


def test_a_source_without_tokens_is_refused_or_leaves_the_others_alone(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "right")
    inputs["attention_mask"][1] = 0
    expected = generate(model, inputs, **GREEDY)
    try:
        found, _ = generate_by(model, client, inputs, **GREEDY)
    except attnd.transformers.Refused as refused:
        assert "all is masked" in str(refused)
    else:
        assert torch.equal(found[::2], expected[::2])
    await_no_sessions(client)


def test_by_tcp(server: Server, client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "holes")
    with attnd.Client(server.tcp) as other:
        for settings in WAYS.values():
            check_same(model, other, inputs, **settings)
    await_no_sessions(client)


def test_the_whole_context_is_used_in_the_defaults(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    for settings in WAYS.values():
        check_same(model, client, inputs, {"min_cached_tokens": None}, **settings)


class Force:
    """Lets greedy search take given tokens."""

    def __init__(self, tokens: Any) -> None:
        self._tokens = tokens

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        wanted = self._tokens[:, input_ids.shape[1], None]
        return torch.full_like(scores, -torch.inf).scatter(1, wanted, 0.0)


def logits(model: Any, inputs: dict[str, Any], **settings: Any) -> Any:
    """The tokens, and [tokens, rows, words] before anything changes them."""
    out = generate(model, inputs, **settings, return_dict_in_generate=True, output_logits=True)
    return out.sequences, torch.stack(out.logits)


def check_as_good_as_eager(found: Any, eager: Any, truth: Any) -> None:
    """As models.check_as_good_as_eager."""
    unit = torch.finfo(found.dtype).eps / 2
    error, local = found.double() - truth, eager.double() - truth
    assert bool(found.isfinite().all())
    assert rms(error) <= 1.5 * rms(local) + unit * rms(truth), (rms(error), rms(local))
    assert largest(error) <= 3 * largest(local) + unit * largest(truth), (largest(error), largest(local))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("family", "tokens"),
    [("T5", 0), ("T5", 15), ("T5", NEVER), ("Flan-T5", 0), ("umT5", 15), ("Pop2Piano", 15), ("Pix2Struct", 0)],
)
def test_logits(client: attnd.Client, family: str, dtype: str, tokens: int) -> None:
    model, inputs = make_decoder(family).to(getattr(torch, dtype)), sources(family, BATCH, 40, "left")
    inputs = {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=tokens):
        taken, found = logits(model, inputs, **GREEDY)
    forced = {**GREEDY, "logits_processor": [Force(taken)]}
    with implementation(model, "eager"):
        again, eager = logits(model, inputs, **forced)
    assert torch.equal(again, taken)
    exact = copy.deepcopy(model).to(torch.float64)
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    with implementation(exact, "eager"):
        _, truth = logits(exact, inputs, **forced)
    check_as_good_as_eager(found, eager, truth)


def test_scores_of_beams(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", BATCH, 40, "holes")
    settings = {**BEAMS, "return_dict_in_generate": True, "output_scores": True, "num_return_sequences": 4}
    expected = generate(model, inputs, **settings)
    found, watch = generate_by(model, client, inputs, **settings)
    truth = generate(copy.deepcopy(model).double(), inputs, **settings)
    assert watch.steps > 0
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.equal(truth.sequences, expected.sequences)
    assert torch.equal(found.beam_indices, expected.beam_indices)
    check_as_good_as_eager(found.sequences_scores, expected.sequences_scores, truth.sequences_scores.double())
    seen = [torch.stack(out.scores).double() for out in (found, expected, truth)]
    kept = seen[2].isfinite()
    assert torch.equal(seen[0].isfinite(), kept)
    assert largest((seen[0] - seen[2])[kept]) <= 3 * largest((seen[1] - seen[2])[kept]) + 1e-6 * largest(seen[2][kept])


def test_hidden_states(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "right")
    settings = {**GREEDY, "return_dict_in_generate": True, "output_hidden_states": True}
    expected = generate(model, inputs, **settings).decoder_hidden_states
    found, watch = generate_by(model, client, inputs, **settings)
    assert watch.steps > 0
    assert len(found.decoder_hidden_states) == len(expected) == GREEDY["max_new_tokens"]
    for one, other in zip(found.decoder_hidden_states, expected):
        assert all(largest(a - b) <= 1e-4 * largest(b) for a, b in zip(one, other))


def changed(model: Any, name: str) -> None:
    with torch.no_grad():
        for each, parameter in model.named_parameters():
            if name in each and "decoder" in each:
                parameter.mul_(-1)


@pytest.mark.parametrize("name", ["relative_attention_bias", "EncDecAttention.v", "EncDecAttention.q", "Attention.k"])
def test_the_comparison_sees_wrong_weights(client: attnd.Client, name: str) -> None:
    """And weights that change while the model is attached are used."""
    model, inputs = make_decoder("T5"), sources("T5", BATCH, 40, "left")
    before = generate(model, inputs, **GREEDY)
    with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=0):
        assert torch.equal(generate(model, inputs, **GREEDY), before)
        changed(model, name)
        after = generate(model, inputs, **GREEDY)
    assert not torch.equal(after, before)
    assert torch.equal(generate(model, inputs, **GREEDY), after)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("family", ["T5", "umT5", "UDOP", "LongT5, global"])
def test_a_source_is_projected_once(client: attnd.Client, family: str, beams: int) -> None:
    model, inputs = make_decoder(family), sources(family, BATCH, 40, "left")
    settings = {**GREEDY, "num_beams": beams}
    expected = generate(model, inputs, **settings)
    rows: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        if name.endswith((".EncDecAttention.k", ".EncDecAttention.v")):
            rows[name] = []
            module.register_forward_hook(lambda _, __, out, seen=rows[name]: seen.append(out.shape[0]))
    assert len(rows) == 2 * LAYERS
    found, watch = generate_by(model, client, inputs, **settings)
    assert torch.equal(found, expected)
    assert rows == {name: [BATCH] for name in rows}
    assert (watch.sources, watch.rows) == (BATCH, BATCH * beams)


def test_a_source_is_held_once(client: attnd.Client) -> None:
    """Four beams cost no more memory for the source than one."""
    model, inputs = make_decoder("T5"), sources("T5", 2, 300, "none")
    bytes_used = []
    for beams in (1, 4):
        settings = {**GREEDY, "num_beams": beams}
        watch = check_same(model, client, inputs, {"min_cached_tokens": NEVER}, **settings)
        bytes_used.append(max(info.used_bytes for info in watch.found.values()))
    assert bytes_used[0] == bytes_used[1] >= 2 * LAYERS * 2 * 300 * 64 * 4


@pytest.mark.parametrize("expand", ["repeat_interleave", "repeat"])
def test_rows_that_the_caller_expanded(client: attnd.Client, expand: str) -> None:
    """Equal sources are found, or not; the tokens are right."""
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    rows = {
        name: value.repeat_interleave(3, 0) if expand == "repeat_interleave" else value.repeat(3, 1)
        for name, value in inputs.items()
    }
    watch = check_same(model, client, rows, do_sample=True, max_new_tokens=12, seed=5)
    assert watch.sources in (2, 6)


def test_no_session_stays(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=0):
        for settings in (GREEDY, BEAMS):
            generate(model, inputs, **settings)
            await_no_sessions(client)


def test_a_session_goes_with_an_error_in_the_middle(client: attnd.Client) -> None:
    class Stop:
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if input_ids.shape[1] > 5:
                raise KeyError("stop")
            return scores

    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    expected = generate(model, inputs, **GREEDY)
    with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=0):
        with pytest.raises(KeyError):
            generate(model, inputs, **GREEDY, logits_processor=[Stop()])
        assert torch.equal(generate(model, inputs, **GREEDY), expected)
        gc.collect()
        await_no_sessions(client)


@pytest.mark.parametrize("family", ["T5", "umT5", "Switch", "UDOP"])
def test_a_forward_pass_without_a_cache_of_attnd(client: attnd.Client, family: str) -> None:
    model, inputs = make_decoder(family), sources(family, 2, 40, "left")
    inputs["decoder_input_ids"] = torch.randint(2, 128, (2, 9))
    with torch.inference_mode():
        for more in ({}, {"use_cache": False}):
            expected = model(**inputs, **more).logits
            with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=0):
                found = model(**inputs, **more).logits
            assert largest(found - expected) <= 1e-4 * largest(expected)


def test_the_decoder_may_be_left_out(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    expected = generate(model, inputs, **BEAMS)
    found, watch = generate_by(model, client, inputs, {"decoder": False}, **BEAMS)
    assert torch.equal(found, expected)
    assert watch.steps == 0


def test_detaching_leaves_nothing(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    generate_by(model, client, inputs, **BEAMS)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    found = generate(model, inputs, **GREEDY, return_dict_in_generate=True)
    assert type(getattr(found, CACHE).self_attention_cache) is transformers.DynamicCache


def test_a_copy_is_not_attached(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    expected = generate(model, inputs, **GREEDY)
    with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=0):
        other = copy.deepcopy(model)
        out = generate(other, inputs, **GREEDY, return_dict_in_generate=True)
        assert torch.equal(out.sequences, expected)
        assert client.list_sessions() == []
        assert type(getattr(out, CACHE).self_attention_cache) is transformers.DynamicCache


def test_check_compares_generation(client: attnd.Client, capsys: pytest.CaptureFixture[str]) -> None:
    model, inputs = make_decoder("T5"), padded(2, 40, "left")
    for beams in (1, 3):
        attnd.transformers.check(model, inputs, client, repeats=1, new_tokens=10, num_beams=beams)
        assert "token" in capsys.readouterr().out
    with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=0) as handle:
        attnd.transformers.check(model, inputs, repeats=1, new_tokens=10, quiet=True)
        assert capsys.readouterr().out == ""
        assert handle.attached
