"""Where the bias tables of attached models are."""

from __future__ import annotations

import pathlib
import re
import threading
import time
from typing import Any, Callable

import pytest

import attnd
import attnd.transformers
from conftest import Server
from waits import join_all

from .libraries import torch, transformers
from .models import check_as_good_as_eager, make, padded, run

INPUTS = padded(2, 50, "left")


def places(model: Any, target: Any) -> list[Any]:
    with attnd.transformers.attach(model, target, min_length=0) as handle:
        check_as_good_as_eager(run(model, INPUTS), model, INPUTS)
        return list(handle.tables().values())


def test_uploaded_once_and_found_by_content(make_server: Callable[..., Server]) -> None:
    server = make_server()
    model = make("umT5")
    with attnd.Client(server.unix) as client:
        embedded = {each.name for each in client.list_models()}
        first = places(model, client)
        assert all(place.uploaded for place in first)
        models = {each.name: each for each in client.list_models()}
        assert set(models) == embedded | {place.model for place in first}
        assert len({place.model for place in first}) == 3
        for place in first:
            assert models[place.model].content_hash == place.content_hash
            assert place.content_hash[:16] in place.model
        again = places(make("umT5"), client)
        assert [place._replace(uploaded=True) for place in again] == first
        assert not any(place.uploaded for place in again)
        assert len(client.list_models()) == len(models)


def test_found_under_another_name(make_server: Callable[..., Server]) -> None:
    server = make_server()
    model = make("T5")
    table = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.detach().numpy()
    with attnd.Client(server.unix) as client:
        client.upload_table("mine", attnd.Table(attnd.T5Buckets(32, 128, table), bidirectional=True, name="encoder"))
        (place,) = places(model, client)
        assert (place.model, place.tables, place.uploaded) == ("mine", ("encoder",), False)


@pytest.mark.parametrize(
    ("kind", "checkpoint", "tables"),
    [
        ("T5EncoderModel", "t5_fp32", ["encoder"]),
        ("T5ForConditionalGeneration", "t5_bf16", ["encoder", "decoder"]),
        ("UMT5EncoderModel", "umt5_fp32", ["encoder.0", "encoder.1"]),
    ],
)
def test_found_in_a_checkpoint_that_the_server_has_loaded(
    make_server: Callable[..., Server], golden: pathlib.Path, kind: str, checkpoint: str, tables: list[str]
) -> None:
    server = make_server(f"--model_root={golden / 'checkpoints'}")
    model = getattr(transformers, kind).from_pretrained(golden / "checkpoints" / checkpoint).eval()
    found = places(model, server.unix)
    assert [name for place in found for name in place.tables] == tables
    assert not any(place.uploaded for place in found)


def test_a_refused_upload_says_what_to_load(make_server: Callable[..., Server], golden: pathlib.Path) -> None:
    with attnd.Client(make_server().unix) as client:
        loaded = len(client.list_models())
    server = make_server(f"--max_models={loaded}")
    path = golden / "checkpoints" / "t5_fp32"
    model = transformers.T5EncoderModel.from_pretrained(path).eval()
    with pytest.raises(attnd.FailedPrecondition) as refused:
        attnd.transformers.attach(model, server.unix)
    assert refused.value.field == "table"
    for words in (str(path), "32 buckets", "128", "4 heads", "ResourceExhausted", "--model_root", server.unix):
        assert words in str(refused.value)
    assert re.search("content hash [0-9a-f]{64}", str(refused.value))
    assert isinstance(refused.value.__cause__, attnd.ResourceExhausted)
    assert run(model, INPUTS).shape == (2, 50, 64)


def test_a_server_that_was_killed_and_started_again(attnd_binary: str, tmp_path: pathlib.Path) -> None:
    model = make("T5")
    folder = tmp_path / "s"
    server = Server(attnd_binary, folder, ("--shared_memory",))
    try:
        with attnd.transformers.attach(model, server.unix, min_length=0) as handle:
            check_as_good_as_eager(run(model, INPUTS), model, INPUTS)
            for _ in range(2):
                server.kill()
                server = Server(attnd_binary, folder, ("--shared_memory",))
                check_as_good_as_eager(run(model, INPUTS), model, INPUTS)
                assert next(iter(handle.tables().values())).uploaded
                # The client looks for the local door again after a second.
                deadline = time.monotonic() + 30
                while handle.transport != "local" and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert handle.transport == "local"
                check_as_good_as_eager(run(model, INPUTS), model, INPUTS)
    finally:
        server.kill()


def test_a_server_that_stops_in_the_middle_of_a_pass(attnd_binary: str, tmp_path: pathlib.Path) -> None:
    model = make("T5")
    folder = tmp_path / "s"
    servers = [Server(attnd_binary, folder, ("--shared_memory",))]

    def restart(*_: Any) -> None:
        servers[-1].stop()
        thread = threading.Timer(0.3, lambda: servers.append(Server(attnd_binary, folder, ("--shared_memory",))))
        thread.start()
        waiting.append(thread)

    waiting: list[threading.Timer] = []
    try:
        with attnd.transformers.attach(model, servers[0].unix, min_length=0):
            hook = model.encoder.block[1].register_forward_pre_hook(restart)
            found = run(model, INPUTS)
            hook.remove()
            check_as_good_as_eager(found, model, INPUTS)
    finally:
        for thread in waiting:
            join_all([thread])
        for server in servers:
            server.kill()
    assert len(servers) == 2


def uploaded(client: attnd.Client, name: str, values: Any) -> None:
    rule = attnd.T5Buckets(32, 128, values)
    client.upload_table(name, attnd.Table(rule, bidirectional=True, name="encoder"), replace=True)


def other_values(client: attnd.Client, name: str) -> None:
    uploaded(client, name, torch.randn(32, 4).numpy())


def other_heads(client: attnd.Client, name: str) -> None:
    client.unload_model(name)
    uploaded(client, name, torch.randn(32, 6).numpy())


def nothing_left(client: attnd.Client, name: str) -> None:
    client.unload_model(name)


@pytest.mark.parametrize("change", [other_values, other_heads, nothing_left])
def test_a_model_that_somebody_replaces_is_not_taken_for_ours(
    make_server: Callable[..., Server], change: Callable[[attnd.Client, str], None]
) -> None:
    model = make("T5")
    table = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.detach().numpy()
    with attnd.Client(make_server().unix) as client:
        uploaded(client, "mine", table)
        with attnd.transformers.attach(model, client, min_length=0) as handle:
            assert [place.model for place in handle.tables().values()] == ["mine"]
            change(client, "mine")
            check_as_good_as_eager(run(model, INPUTS), model, INPUTS)
            assert [place.model for place in handle.tables().values()] != ["mine"]


@pytest.mark.parametrize("done", [False, True])
def test_an_upload_whose_answer_was_lost(make_server: Callable[..., Server], done: bool) -> None:
    model = make("T5")
    with attnd.Client(make_server().unix) as client:
        upload = client.upload_table
        calls: list[str] = []

        def lose_the_first(name: str, table: Any) -> Any:
            calls.append(name)
            if len(calls) == 1:
                if done:
                    upload(name, table)
                raise attnd.Unavailable("the connection was lost")
            return upload(name, table)

        client.upload_table = lose_the_first  # type: ignore[method-assign]
        (place,) = places(model, client)
        assert place.model == calls[0]
        assert len(calls) == (1 if done else 2)


@pytest.mark.parametrize("error", [attnd.PermissionDenied, attnd.Unimplemented, attnd.Unauthenticated])
def test_a_proxy_that_lets_no_upload_through(make_server: Callable[..., Server], error: type[attnd.Error]) -> None:
    def refuse(name: str, table: Any) -> Any:
        raise error("not for you")

    with attnd.Client(make_server().unix) as client:
        client.upload_table = refuse  # type: ignore[method-assign]
        with pytest.raises(attnd.FailedPrecondition, match=f"{error.__name__}: not for you"):
            attnd.transformers.attach(make("T5"), client)
