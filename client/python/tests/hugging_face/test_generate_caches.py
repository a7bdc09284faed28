"""Caches: those of the caller's own, those that handle.cache() gives, and those that are refused."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator

import pytest

import attnd
import attnd.transformers
from attnd.transformers import Refused

from .generating import (
    BEAMS,
    CACHE,
    GREEDY,
    NEVER,
    Watch,
    await_no_sessions,
    generate,
    generate_by,
    make_decoder,
    sources,
)
from .libraries import torch, transformers
from .models import largest

remote_from = pytest.mark.parametrize("tokens", [0, 12, NEVER])


@contextlib.contextmanager
def attached(model: Any, client: attnd.Client, tokens: int = 0) -> Iterator[Any]:
    with attnd.transformers.attach(model, client, min_length=0, min_cached_tokens=tokens) as handle:
        yield handle


def dynamic(model: Any, how: str) -> Any:
    """An empty cache of transformers' own."""
    kinds = [
        transformers.DynamicCache(config=model.config.get_text_config(decoder=True))
        if how == "of a config"
        else transformers.DynamicCache()
        for _ in range(2)
    ]
    return transformers.EncoderDecoderCache(*kinds)


@remote_from
@pytest.mark.parametrize("how", ["of a config", "bare"])
def test_an_empty_cache_is_converted(client: attnd.Client, how: str, tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    for settings in (GREEDY, BEAMS):
        expected = generate(model, {**inputs, CACHE: dynamic(model, how)}, **settings)
        assert torch.equal(expected, generate(model, inputs, **settings))
        found, watch = generate_by(
            model, client, {**inputs, CACHE: dynamic(model, how)}, {"min_cached_tokens": tokens}, **settings
        )
        assert torch.equal(found, expected)
        assert watch.steps > 0
        assert watch.rows == 3 * settings.get("num_beams", 1)


def go_on(model: Any, inputs: dict[str, Any], first: Any, **options: Any) -> Any:
    """Generates more by the cache of a first call."""
    rows = first.sequences.shape[0] // inputs["input_ids"].shape[0]
    more = {
        **{name: value.repeat_interleave(rows, 0) for name, value in inputs.items()},
        "decoder_input_ids": first.sequences,
        "decoder_attention_mask": torch.ones_like(first.sequences),
        CACHE: getattr(first, CACHE),
    }
    return generate(model, more, **GREEDY, **options)


@remote_from
@pytest.mark.parametrize("beams", [1, 3])
def test_a_filled_cache_is_converted(client: attnd.Client, beams: int, tokens: int) -> None:
    """That another call made, before the model was attached."""
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    settings: dict[str, Any] = {**GREEDY, "num_beams": beams, "num_return_sequences": beams}

    def first() -> Any:
        return generate(model, inputs, **settings, return_dict_in_generate=True)

    expected = go_on(model, inputs, first())
    begun, watch = first(), Watch(client)
    with attached(model, client, tokens):
        assert torch.equal(go_on(model, inputs, begun, logits_processor=[watch]), expected)
    assert watch.steps > 0


def static(model: Any) -> Any:
    """For sources of 40 tokens."""
    config = model.config.get_text_config(decoder=True)
    caches = [transformers.StaticCache(config=config, max_cache_len=40) for _ in range(2)]
    return transformers.EncoderDecoderCache(*caches)


def half_static(model: Any) -> Any:
    return transformers.EncoderDecoderCache(transformers.DynamicCache(), static(model).cross_attention_cache)


REFUSED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "both are a StaticCache": lambda model: {CACHE: static(model)},
    "one is a StaticCache": lambda model: {CACHE: half_static(model)},
    "static": lambda _: {"cache_implementation": "static"},
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_caches_are_refused_by_name(client: attnd.Client, what: str) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    expected = generate(model, inputs, **GREEDY)
    with attached(model, client):
        with pytest.raises(Refused, match=what.rsplit(maxsplit=1)[-1]):
            generate(model, {**inputs, **REFUSED[what](model)}, **GREEDY)
        assert torch.equal(generate(model, inputs, **GREEDY), expected)
    await_no_sessions(client)


def test_a_forward_pass_with_a_static_cache_is_local(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 2, 40, "left")
    expected = Decoding(model, inputs, static(model)).go(10)
    assert torch.equal(expected, Decoding(model, inputs, dynamic(model, "bare")).go(10))
    with attached(model, client):
        assert torch.equal(Decoding(model, inputs, static(model)).go(10), expected)
        assert client.list_sessions() == []


class Decoding:
    """The loop that generate makes, by hand, in inference mode."""

    def __init__(self, model: Any, inputs: dict[str, Any], cache: Any) -> None:
        self._model, self.cache = model, cache
        self._fixed = {"attention_mask": inputs["attention_mask"], CACHE: cache}
        with torch.inference_mode():
            self._fixed["encoder_outputs"] = model.get_encoder()(**inputs)
        self.tokens = torch.zeros(inputs["attention_mask"].shape[0], 1, dtype=torch.long)

    def logits(self, tokens: Any) -> Any:
        with torch.inference_mode():
            return self._model(**self._fixed, decoder_input_ids=tokens, use_cache=True).logits

    def go(self, count: int) -> Any:
        """Appends `count` tokens, and returns all. They depend on the position, lest one comes again and again."""
        for _ in range(count):
            best = self.logits(self.tokens[:, -1:])[:, -1].argmax(-1, keepdim=True)
            self.tokens = torch.cat([self.tokens, (best + self.tokens.shape[1]) % 126 + 2], 1)
        return self.tokens

    def drop(self, count: int) -> None:
        self.tokens = self.tokens[:, :-count]
        self.cache.crop(-count)


def steps(client: attnd.Client) -> dict[int, int]:
    """Of each session that is open, by its id."""
    found = {info.id: info.steps for info in client.list_sessions()}
    assert found
    return found


def test_several_tokens_in_parts_behind_a_cut(client: attnd.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows make parts of few tokens, and rows are cut before the first of them."""
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    local = Decoding(model, inputs, dynamic(model, "bare"))
    monkeypatch.setattr("attnd.transformers._pieces._PIECE_BYTES", 1)
    with attached(model, client) as handle:
        remote = Decoding(model, inputs, handle.cache(max_tokens=40))
        for decoding in (local, remote):
            decoding.go(9)
            decoding.drop(4)
        more = torch.randint(2, 120, (3, 5), generator=torch.Generator().manual_seed(3))
        assert largest(remote.logits(more) - local.logits(more)) < 1e-4
        assert remote.cache.get_seq_length() == local.cache.get_seq_length() == 10


@pytest.mark.parametrize(
    ("family", "tokens"), [("T5", 0), ("T5", 12), ("T5", NEVER), ("umT5", 12), ("Switch", 0), ("UDOP", 0)]
)
def test_decoding_by_hand(client: attnd.Client, family: str, tokens: int) -> None:
    model, inputs = make_decoder(family), sources(family, 3, 40, "left")
    expected = Decoding(model, inputs, dynamic(model, "bare")).go(80)
    with attached(model, client, tokens) as handle:
        decoding = Decoding(model, inputs, handle.cache(max_tokens=80))
        assert torch.equal(decoding.go(20), expected[:, :21])
        assert decoding.cache.get_seq_length() == 20
        before = steps(client)
        assert {(info.rows, info.sources) for info in client.list_sessions()} <= {(3, 3), (3, 0)}
        assert torch.equal(decoding.go(60), expected)
        assert all(steps(client)[each] > count > 0 for each, count in before.items())
        del decoding
        await_no_sessions(client)


@pytest.mark.parametrize("settings", [GREEDY, BEAMS])
def test_it_may_be_passed_to_generate(client: attnd.Client, settings: dict[str, Any]) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    expected = generate(model, inputs, **settings)
    with attached(model, client) as handle:
        watch = Watch(client)
        inputs[CACHE] = handle.cache(max_tokens=30)
        assert torch.equal(generate(model, inputs, **settings, logits_processor=[watch]), expected)
        assert watch.steps > 0


@remote_from
def test_several_tokens_at_once(client: attnd.Client, tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    pieces = torch.randint(2, 128, (3, 120), generator=torch.Generator().manual_seed(3)).split([1, 7, 90, 1, 21], 1)
    local = Decoding(model, inputs, dynamic(model, "bare"))
    expected = [local.logits(piece) for piece in pieces]
    with attached(model, client, tokens) as handle:
        decoding = Decoding(model, inputs, handle.cache(max_tokens=120))
        for piece, wanted in zip(pieces, expected):
            assert largest(decoding.logits(piece) - wanted) <= 1e-4 * largest(wanted)
        assert sum(steps(client).values()) > 0


def test_more_tokens_than_it_has_room_for_are_an_error(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    expected = Decoding(model, inputs, dynamic(model, "bare")).go(10)
    with attached(model, client) as handle:
        decoding = Decoding(model, inputs, handle.cache(max_tokens=10))
        assert torch.equal(decoding.go(10), expected)
        for _ in range(2):
            with pytest.raises(attnd.Error, match="max_tokens"):
                decoding.go(1)
        assert decoding.cache.get_seq_length() == 10
        decoding.drop(4)
        assert torch.equal(decoding.go(4), expected)


@remote_from
def test_crop(client: attnd.Client, tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    expected = Decoding(model, inputs, dynamic(model, "bare")).go(90)
    with attached(model, client, tokens) as handle:
        decoding = Decoding(model, inputs, handle.cache(max_tokens=90))
        for more, fewer in ((10, 3), (70, 68), (5, 1), (1, 1), (76, 0)):
            found = decoding.go(more)
            assert torch.equal(found, expected[:, : found.shape[1]])
            if fewer:
                # What is thrown away is another's, and must leave no trace.
                wrong = torch.randint(2, 128, (3, fewer))
                decoding.drop(fewer)
                decoding.logits(wrong)
                decoding.cache.crop(-fewer)
                assert decoding.cache.get_seq_length() == decoding.tokens.shape[1] - 1
        assert decoding.tokens.shape[1] == 90
        assert sum(steps(client).values()) > 0


@remote_from
def test_reset(client: attnd.Client, tokens: int) -> None:
    """Another batch begins with the same cache."""
    model = make_decoder("T5")
    first, second = sources("T5", 3, 40, "left"), sources("T5", 3, 40, "holes")
    second["input_ids"] = second["input_ids"].flip(1)
    expected = [Decoding(model, inputs, dynamic(model, "bare")).go(15) for inputs in (first, second)]
    assert not torch.equal(*expected)
    with attached(model, client, tokens) as handle:
        cache = handle.cache(max_tokens=15)
        for inputs, wanted in zip((first, second, first), (*expected, expected[0])):
            assert torch.equal(Decoding(model, inputs, cache).go(15), wanted)
            assert sum(steps(client).values()) > 0
            cache.reset()
            assert cache.get_seq_length() == 0


@remote_from
def test_reorder(client: attnd.Client, tokens: int) -> None:
    """Rows of one source change places."""
    model = make_decoder("T5")
    inputs = {name: value.repeat_interleave(3, 0) for name, value in sources("T5", 2, 40, "left").items()}
    words = torch.randint(2, 128, (6, 80), generator=torch.Generator().manual_seed(3))
    moves = [torch.tensor(rows) for rows in ([0, 0, 1, 3, 5, 5], [2, 1, 0, 3, 4, 5], [1, 1, 1, 4, 4, 3])]

    def run(cache: Any) -> list[Any]:
        decoding, found = Decoding(model, inputs, cache), []
        for at in range(80):
            found.append(decoding.logits(words[:, at, None]))
            if at % 4 == 3:
                cache.reorder_cache(moves[at // 4 % 3])
        return found

    expected = run(dynamic(model, "bare"))
    with attached(model, client, tokens) as handle:
        found = run(handle.cache(max_tokens=80))
    assert all(largest(one - other) <= 1e-4 * largest(other) for one, other in zip(found, expected))


@remote_from
@pytest.mark.parametrize("method", ["batch_repeat_interleave", "batch_select_indices"])
def test_other_changes_of_rows_are_right_or_refused(client: attnd.Client, method: str, tokens: int) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    argument: Any = 2 if method == "batch_repeat_interleave" else torch.tensor([2, 0])
    rows = [0, 0, 1, 1, 2, 2] if method == "batch_repeat_interleave" else [2, 0]

    def run(cache: Any) -> Any:
        Decoding(model, inputs, cache).go(5)
        getattr(cache, method)(argument)
        decoding = Decoding(model, {name: value[rows] for name, value in inputs.items()}, cache)
        return decoding.logits(torch.full((len(rows), 1), 7))

    expected = run(dynamic(model, "bare"))
    with attached(model, client, tokens) as handle:
        try:
            found = run(handle.cache(max_tokens=20))
        except (attnd.Error, NotImplementedError) as error:
            assert method in str(error)
        else:
            assert largest(found - expected) <= 1e-4 * largest(expected)


def test_after_detaching_a_cache_is_of_no_use(client: attnd.Client) -> None:
    model, inputs = make_decoder("T5"), sources("T5", 3, 40, "left")
    with attached(model, client) as handle:
        decoding, unused = Decoding(model, inputs, handle.cache(max_tokens=20)), handle.cache(max_tokens=20)
        decoding.go(3)
    for each in (decoding, Decoding(model, inputs, unused)):
        for _ in range(2):
            with pytest.raises(attnd.Error, match="attached"):
                each.go(1)
    await_no_sessions(client)
    with attached(model, client):  # to attach again does not bring it back
        with pytest.raises(attnd.Error, match="attached"):
            decoding.go(1)
        assert torch.equal(generate(model, inputs, **GREEDY)[:, :1], torch.zeros(3, 1, dtype=torch.long))


@pytest.mark.parametrize("tokens", [0, -1, "x"])
def test_the_room_of_a_cache_is_checked(client: attnd.Client, tokens: Any) -> None:
    with attached(make_decoder("T5"), client) as handle, pytest.raises(attnd.InvalidArgument, match="max_tokens"):
        handle.cache(max_tokens=tokens)
