"""What makes a generation's steps short gives what the long way gives: steps of a session, errors too, and the bias."""

from __future__ import annotations

from typing import Any

import pytest

import attnd
from conftest import Server

from .libraries import torch
from .models import make

SELF, CROSS = 0, 1


def opened(client: attnd.Client, rows: int, dtype: str = "float32", max_tokens: int = 40) -> attnd.Session:
    layers = [attnd.SelfLayer(8, 64), attnd.CrossLayer(8, 64)]
    session = client.session(
        layers, "t5-tiny", rows=rows, sources=1, max_tokens=max_tokens, max_source_tokens=30, dtype=dtype
    )
    torch.manual_seed(7)
    source = torch.randn(1, 30, 8, 64).to(getattr(torch, dtype))
    session.append(CROSS, source, source, layout="bshd")
    return session


def quick_steps(session: attnd.Session) -> Any:
    from attnd.transformers._quick_step import QuickSteps

    return QuickSteps(session, 60.0)


def tensors(rows: int, dtype: str = "float32", tokens: int = 1) -> tuple[Any, Any, Any]:
    q, k, v = (torch.randn(rows, tokens, 8, 64).to(getattr(torch, dtype)) for _ in range(3))
    return q, k, v


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 16])
def test_they_give_what_the_session_gives(client: attnd.Client, rows: int, dtype: str) -> None:
    with opened(client, rows, dtype) as one, opened(client, rows, dtype) as other:
        assert one.transport == "local"
        quick = quick_steps(one)
        used = 0
        for step in range(12):
            q, k, v = tensors(rows, dtype, tokens=3 if step == 5 else 1)
            found = quick.attend(SELF, (q, k, v))
            used += found is not None
            if found is None:  # the region is made by an ordinary step
                found = one.attend(SELF, q, k, v, layout="bshd")
            assert torch.equal(found, other.attend(SELF, q, k, v, layout="bshd"))
            found = quick.attend(CROSS, (q,))
            assert found is not None
            assert found.dtype is q.dtype
            assert torch.equal(found, other.attend(CROSS, q, layout="bshd"))
            if step == 8:  # a large step in between takes another region
                assert one.attend(CROSS, tensors(rows, dtype, 90)[0], layout="bshd") is not None
        assert used >= 9
        assert one.lengths(SELF) == other.lengths(SELF) == (14,) * rows


def test_an_output_is_the_callers_own(client: attnd.Client) -> None:
    with opened(client, 16) as session:
        quick = quick_steps(session)
        session.attend(CROSS, tensors(16)[0], layout="bshd")
        q, other = tensors(16)[:2]
        first = quick.attend(CROSS, (q,))
        kept = first.clone()
        assert not torch.equal(quick.attend(CROSS, (other,)), first)
        assert torch.equal(first, kept)


def test_a_step_that_is_refused_leaves_the_session_as_it_was(client: attnd.Client) -> None:
    with opened(client, 1, max_tokens=2) as session:
        quick = quick_steps(session)
        for _ in range(2):
            assert quick.attend(SELF, tensors(1)) is not None
        for _ in range(2):
            with pytest.raises(attnd.OutOfRange):
                quick.attend(SELF, tensors(1))
        assert session.lengths(SELF) == (2,)
        assert quick.attend(CROSS, tensors(1)[:1]) is not None


def test_the_end_of_a_session_is_an_error(make_server: Any) -> None:
    server: Server = make_server("--shared_memory")
    with attnd.Client(server.unix) as client:
        sessions = [opened(client, 1) for _ in range(3)]
        quick = [quick_steps(session) for session in sessions]
        for one in quick:
            assert one.attend(CROSS, tensors(1)[:1]) is not None
        sessions[0].close()
        with pytest.raises(attnd.FailedPrecondition, match="closed"):
            quick[0].attend(CROSS, tensors(1)[:1])
        client.evict_session(min(info.id for info in client.list_sessions()))
        with pytest.raises(attnd.Aborted):
            quick[1].attend(CROSS, tensors(1)[:1])
        assert quick[2].attend(CROSS, tensors(1)[:1]) is not None
        server.kill()
        with pytest.raises(attnd.Unavailable):
            for _ in range(2):  # the first may find that nothing can be sent
                assert quick[2].attend(CROSS, tensors(1)[:1]) is None
                sessions[2].attend(CROSS, tensors(1)[0], layout="bshd")


def test_the_long_way_where_there_is_no_short_one(server: Server) -> None:
    q = tensors(1)[0]
    with attnd.Client(server.tcp) as client, opened(client, 1) as session:
        assert quick_steps(session).attend(CROSS, (q,)) is None
    with attnd.Client(server.unix) as client:
        layers = [attnd.CrossLayer(8, 64)]
        with client.session(layers, rows=1, sources=1, max_source_tokens=4, replay_bytes=1 << 20) as session:
            assert quick_steps(session).attend(0, (q,)) is None


def test_the_kept_bias_is_that_of_the_weights_as_they_are() -> None:
    from attnd.transformers._bias_row import BiasRow

    layer = make("T5 with decoder").decoder.block[0].layer[0].SelfAttention
    row = BiasRow(layer)

    def check() -> None:
        for keys in (1, 2, 127, 128, 129, 40, 300):
            assert torch.equal(row.of(keys), layer.compute_bias(1, keys, past_seen_tokens=keys - 1))

    check()
    with torch.no_grad():
        layer.relative_attention_bias.weight[3, 1] += 1
    check()
    layer.to(torch.bfloat16)
    check()
    layer.relative_attention_bias = torch.nn.Sequential(layer.relative_attention_bias)
    assert row.of(5) is None
