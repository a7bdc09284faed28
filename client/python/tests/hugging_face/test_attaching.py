"""Attaching, detaching, copying, saving and changing of models."""

from __future__ import annotations

import copy
import gc
import io
import json
import os
import pathlib
import pickle
import threading
import weakref
from typing import Any, Callable, Iterator

import pytest

import attnd
import attnd.transformers
from attnd.transformers import Refused
from conftest import Server
from waits import join_all

from .libraries import torch, transformers
from .models import by_eager, check_as_good_as_eager, kept, largest, make, padded, run


def counted(handle: Any) -> list[str]:
    """Grows by the model's name on the server with each call."""
    calls: list[str] = []
    compute = handle._connection.client.compute

    def count(request: Any, **options: Any) -> Any:
        calls.append(request.model)
        return compute(request, **options)

    handle._connection.client.compute = count
    return calls


@pytest.fixture
def own_client(server: Server) -> Iterator[attnd.Client]:
    """One that a test may change."""
    with attnd.Client(server.unix) as found:
        yield found


def test_what_was_patched_is_said_and_undone(own_client: attnd.Client) -> None:
    model = make("umT5 with decoder")
    inputs = padded(2, 40, "right")
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    expected = run(model, inputs)
    handle = attnd.transformers.attach(model, own_client, min_length=12, decoder=False)
    calls = counted(handle)
    assert handle.attached
    assert handle.layers == 3
    assert handle.transport == "local"
    assert list(handle.tables()) == ["encoder.block.0", "encoder.block.1", "encoder.block.2"]
    said = str(handle)
    for words in ("encoder: self-attention of 3 layers", own_client.target, "by local", "12 tokens", "decoder: stays"):
        assert words in said
    assert own_client.target in repr(handle)
    assert largest(run(model, inputs) - expected) < 1e-4
    assert len(calls) == 3
    attnd.transformers.detach(model)
    assert not handle.attached
    assert torch.equal(run(model, inputs), expected)
    assert len(calls) == 3
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert model.encoder.config._attn_implementation == "sdpa"
    handle.detach()
    with pytest.raises(Refused, match="is not"):
        attnd.transformers.detach(model)
    own_client.health()  # the caller's client is not closed


def test_attaching_twice_is_refused_and_leaves_the_first(client: attnd.Client) -> None:
    model = make("T5")
    with attnd.transformers.attach(model, client, min_length=0) as handle:
        with pytest.raises(Refused, match="detach") as refused:
            attnd.transformers.attach(model, client)
        assert client.target in refused.value.got
        assert handle.attached
        check_as_good_as_eager(run(model, padded(1, 30, "none")), model, padded(1, 30, "none"))


def copied_by_pickle(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def copied_by_torch(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("family", ["T5", "umT5 with decoder", "Switch"])
@pytest.mark.parametrize("copied", [copy.deepcopy, copied_by_pickle, copied_by_torch])
def test_a_copy_is_not_attached(own_client: attnd.Client, copied: Callable[[Any], Any], family: str) -> None:
    model = make(family)
    inputs = padded(2, 40, "left")
    expected = run(model, inputs)
    with attnd.transformers.attach(model, own_client, min_length=0) as handle:
        calls = counted(handle)
        other = copied(model)
        assert type(other.encoder.config._attn_implementation) is str
        assert other.encoder.config._attn_implementation == model.encoder.config._attn_implementation_internal.before
        assert torch.equal(run(other, inputs), expected)
        assert calls == []
        with pytest.raises(Refused):
            attnd.transformers.detach(other)
        # The copy has tables of its own.
        with torch.no_grad():
            other.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight += 1
        with attnd.transformers.attach(other, own_client, min_length=0):
            check_as_good_as_eager(run(other, inputs), other, inputs)
            check_as_good_as_eager(run(model, inputs), model, inputs)
        check_as_good_as_eager(run(model, inputs), model, inputs)


def test_saving(client: attnd.Client, tmp_path: pathlib.Path) -> None:
    model = make("T5")
    inputs = padded(2, 40, "right")
    keys = list(model.state_dict())
    model.save_pretrained(tmp_path / "before")
    with attnd.transformers.attach(model, client, min_length=0):
        assert list(model.state_dict()) == keys
        model.save_pretrained(tmp_path / "attached")
        expected = by_eager(model, inputs)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "attached" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    assert "attnd" not in json.dumps(json.loads((tmp_path / "attached" / "config.json").read_text()))
    loaded = transformers.T5EncoderModel.from_pretrained(tmp_path / "attached").eval()
    assert largest(run(loaded, inputs) - expected) < 1e-4


def change_by_to(model: Any) -> None:
    model.to(torch.bfloat16)


def change_by_load(model: Any) -> None:
    model.load_state_dict(make("T5", seed=7).state_dict())


def change_in_place(model: Any) -> None:
    with torch.no_grad():
        model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.mul_(-1)


def change_behind_the_version_counter(model: Any) -> None:
    model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data.mul_(-1)


def change_the_parameter(model: Any) -> None:
    embedding = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
    embedding.weight = torch.nn.Parameter(torch.randn(32, 4))


class Shifted(torch.nn.Module):
    """What an adapter does to the table's rows."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base

    @property
    def weight(self) -> Any:
        return self.base.weight

    def forward(self, rows: Any) -> Any:
        return self.base(rows) + rows[..., None] * 0.1


def change_by_adapter(model: Any) -> None:
    attention = model.encoder.block[0].layer[0].SelfAttention
    attention.relative_attention_bias = Shifted(attention.relative_attention_bias)


@pytest.mark.parametrize(
    "change",
    [
        change_by_to,
        change_by_load,
        change_in_place,
        change_behind_the_version_counter,
        change_the_parameter,
        change_by_adapter,
    ],
)
def test_changed_weights_are_seen(client: attnd.Client, change: Callable[[Any], None]) -> None:
    model = make("T5")
    inputs = padded(2, 50, "right")
    with attnd.transformers.attach(model, client, min_length=0) as handle:
        before = run(model, inputs)
        places = handle.tables()
        change(model)
        after = run(model, inputs)
        assert largest((after - before)[kept(inputs)]) > 0.01
        check_as_good_as_eager(after, model, inputs)
        assert handle.tables() != places


def test_another_implementation_that_is_set_later_is_used(own_client: attnd.Client) -> None:
    model = make("T5")
    inputs = padded(2, 40, "right")
    with attnd.transformers.attach(model, own_client, min_length=0) as handle:
        calls = counted(handle)
        model.set_attn_implementation("eager")
        with torch.inference_mode():
            found = model(**inputs, output_attentions=True)
        assert calls == []
        assert torch.equal(found.last_hidden_state, by_eager(model, inputs))
        assert found.attentions[0].shape == (2, 4, 40, 40)
        model.set_attn_implementation("attnd")
        assert largest((run(model, inputs) - found.last_hidden_state)[kept(inputs)]) < 1e-4
        assert len(calls) == 3
    assert model.config._attn_implementation == "sdpa"
    with attnd.transformers.attach(model, own_client, min_length=0):
        model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"


def test_models_that_share_a_config(own_client: attnd.Client) -> None:
    one = make("T5")
    torch.manual_seed(5)
    other = transformers.T5EncoderModel(one.config).eval()
    assert other.encoder.config is one.encoder.config
    inputs = padded(2, 40, "left")
    expected = run(other, inputs)
    first = attnd.transformers.attach(one, own_client, min_length=0)
    calls = counted(first)
    assert largest((run(other, inputs) - expected)[kept(inputs)]) < 1e-5
    assert calls == []
    second = attnd.transformers.attach(other, own_client, min_length=0)
    first.detach()
    check_as_good_as_eager(run(one, inputs), one, inputs)
    before = len(calls)
    check_as_good_as_eager(run(other, inputs), other, inputs)
    assert len(calls) == before + 3
    second.detach()
    assert one.config._attn_implementation == "sdpa"


def test_short_sequences_stay_local(own_client: attnd.Client) -> None:
    for family in ("T5", "umT5", "Switch"):
        model = make(family)
        with attnd.transformers.attach(model, own_client, min_length=30) as handle:
            calls = counted(handle)
            for padding in ("none", "left", "holes"):
                inputs = padded(3, 29, padding)
                check_as_good_as_eager(run(model, inputs), model, inputs)
            assert calls == []
            run(model, padded(3, 30, "left"))
            assert len(calls) == 3
            handle.min_length = 31
            run(model, padded(3, 30, "left"))
            assert len(calls) == 3


def test_the_length_from_which_on_calls_pay_is_measured(client: attnd.Client) -> None:
    model = make("T5")
    with attnd.transformers.attach(model, client) as handle:
        assert handle.min_length in [16 << power for power in range(8)]
        assert f"shorter than {handle.min_length} tokens" in str(handle)
    with pytest.raises(attnd.InvalidArgument, match="min_length"):
        attnd.transformers.attach(model, client, min_length=-1)


def test_a_part_of_a_larger_model(client: attnd.Client) -> None:
    class Pipeline(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text_encoder = make("T5").to(torch.bfloat16)
            self.other = make("umT5")

    pipeline = Pipeline().eval()
    inputs = padded(2, 40, "right")
    with attnd.transformers.attach(pipeline, client, min_length=0) as handle:
        assert handle.layers == 6
        assert len(handle.tables()) == 4
        check_as_good_as_eager(run(pipeline.text_encoder, inputs), pipeline.text_encoder, inputs)
        check_as_good_as_eager(run(pipeline.other, inputs), pipeline.other, inputs)


def test_the_environment_names_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTND_SERVER", server.unix)
    with attnd.transformers.attach(make("T5"), min_length=0) as handle:
        assert handle.target == server.unix
        assert "ATTND_SERVER" in str(handle)


def _runs(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_without_a_target_a_private_server_lives_with_the_handle() -> None:
    model = make("T5")
    inputs = padded(2, 40, "right")
    handle = attnd.transformers.attach(model, min_length=0)
    pid = handle._connection._server.pid
    assert "private" in str(handle)
    check_as_good_as_eager(run(model, inputs), model, inputs)
    handle.detach()
    assert not _runs(pid)


def test_a_model_that_is_dropped_takes_its_server_along() -> None:
    model = make("T5")
    handle = attnd.transformers.attach(model, min_length=0)
    pid = handle._connection._server.pid
    run(model, padded(1, 20, "none"))
    gone = weakref.ref(handle)
    del handle
    gc.collect()
    assert gone() is not None  # the model holds it
    del model
    gc.collect()
    assert gone() is None
    assert not _runs(pid)


def test_a_local_server_as_target(attnd_binary: str) -> None:
    model = make("T5")
    with attnd.local_server(attnd_binary, threads=1) as server:
        with attnd.transformers.attach(model, server, min_length=0) as handle:
            assert handle.target == server.target
            check_as_good_as_eager(run(model, padded(1, 30, "none")), model, padded(1, 30, "none"))
        assert _runs(server.pid)


def test_several_models_and_threads_at_once(client: attnd.Client, server: Server) -> None:
    models = [make("T5", seed=1), make("umT5", seed=2), make("T5", seed=3).to(torch.bfloat16)]
    inputs = [padded(batch, length, padding) for batch, length, padding in ((1, 90, "none"), (3, 50, "holes"))]
    handles = [
        attnd.transformers.attach(model, target, min_length=0)
        for model, target in zip(models, (client, server.unix, server.tcp))
    ]
    expected = [[run(model, each) for each in inputs] for model in models]
    failures: list[Any] = []
    start = threading.Barrier(6)

    def work(which: int) -> None:
        try:
            start.wait()
            for turn in range(8):
                for at, each in enumerate(inputs):
                    found = run(models[which % 3], each)
                    difference = largest((found - expected[which % 3][at])[kept(each)])
                    assert difference <= 1e-5, (which, turn, difference)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(6)]
    for thread in threads:
        thread.start()
    join_all(threads)
    for handle in handles:
        handle.detach()
    assert failures == []


def test_an_output_that_somebody_keeps_is_not_written_over(client: attnd.Client) -> None:
    model = make("T5")
    held: list[tuple[Any, Any]] = []

    def hold(module: Any, arguments: Any, output: Any) -> None:
        held.append((output, output.clone()))
        if arguments[0].shape[-1] == 64:
            held.append((arguments[0], arguments[0].clone()))

    with attnd.transformers.attach(model, client, min_length=0) as handle:
        for block in model.encoder.block:
            attention = block.layer[0].SelfAttention
            for linear in (attention.q, attention.k, attention.v, attention.o):
                linear.register_forward_hook(hold)
        for _ in range(3):
            run(model, padded(2, 50, "right"))
        assert len(held) >= 36
        assert all(torch.equal(tensor, then) for tensor, then in held)
        memory = handle.memory
        waiting = memory.idle
        held.clear()
        gc.collect()
        assert memory.idle > waiting


def test_memory_is_used_again(client: attnd.Client) -> None:
    model = make("T5")
    with attnd.transformers.attach(model, client, min_length=0) as handle:
        run(model, padded(2, 50, "right"))
        first = handle.memory.idle
        for _ in range(5):
            run(model, padded(2, 50, "right"))
        assert handle.memory.idle == first
        assert 4 <= first <= 8  # one layer's q, k, v and output, and the next one's q while these are still referred to


def test_nothing_is_copied_by_the_local_door(own_client: attnd.Client) -> None:
    model = make("T5")
    with attnd.transformers.attach(model, own_client, min_length=0):
        stager = own_client._core.transports[0]._host.stager  # type: ignore[attr-defined]
        for dtype in (torch.float32, torch.bfloat16):
            model.to(dtype)
            run(model, padded(2, 50, "right"))
        assert (stager.copied_in, stager.copied_out) == (0, 0)


def test_check_runs_both_and_says_how_far_they_are_apart(
    client: attnd.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make("T5 with decoder")
    inputs = {**padded(2, 60, "left"), "decoder_input_ids": torch.ones(2, 1, dtype=torch.long)}
    found = attnd.transformers.check(model, inputs, client, repeats=1)
    assert found.largest < 1e-4 < found.magnitude
    assert found.attached_seconds > 0
    assert found.local_seconds > 0
    assert (found.batch, found.tokens, found.implementation) == (2, 60, "sdpa")
    assert "largest difference" in capsys.readouterr().out
    assert not attnd.transformers._attach._handle_of(model)  # type: ignore[attr-defined]
    with attnd.transformers.attach(model, client, min_length=0) as handle:
        attnd.transformers.check(model, inputs, quiet=True, repeats=1)
        assert handle.attached
        assert capsys.readouterr().out == ""
        # One that is wrong shows.
        handle.compute = lambda content, q, k, v, keys, scale: q.transpose(1, 2).contiguous()  # type: ignore[method-assign]
        assert attnd.transformers.check(model, inputs, quiet=True, repeats=1).largest > 0.01


def test_a_call_after_another_thread_detached_fails_and_says_why(server: Server) -> None:
    model = make("T5")
    handle = attnd.transformers.attach(model, server.unix, min_length=0)
    handle._connection.client.close()
    assert "no way now" in str(handle)
    with pytest.raises(attnd.FailedPrecondition, match="closed"):
        run(model, padded(1, 20, "none"))
    handle.detach()
    assert run(model, padded(1, 20, "none")).shape == (1, 20, 64)
