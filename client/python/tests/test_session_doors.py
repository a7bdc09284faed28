"""A session over the local socket is one by gRPC in everything but speed; and what an operator sees of both."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import signal
import threading
import time
from typing import Any, Callable, Iterator

import numpy as np
import pytest

import attnd
from conftest import Server
from inputs import same_bits
from waits import join_all

HEADS, DIM = 8, 64
SELF, CROSS = attnd.SelfLayer(HEADS, DIM), attnd.CrossLayer(HEADS, 32, kv_heads=2, value_head_dim=16)
OPTIONS: dict[str, dict[str, Any]] = {"local": {}, "grpc": {"local_calls": False}}
doors = pytest.mark.parametrize("door", OPTIONS)


def random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) / 4).astype(dtype)


def tokens(rows: int, length: int, seed: int, dtype: Any = np.float32) -> list[Any]:
    return [random(rows, HEADS, length, DIM, seed=3 * seed + i, dtype=dtype) for i in range(3)]


@pytest.fixture
def client(server: Server, door: str) -> Iterator[attnd.Client]:
    with attnd.Client(server.unix, **OPTIONS[door]) as found:
        yield found


def opened(client: attnd.Client, door: str, *layers: Any, **options: Any) -> attnd.Session:
    session = client.session(list(layers) or [SELF], "t5-tiny", **{"max_tokens": 3000, **options})
    assert session.transport == door
    return session


def steps(dtype: Any) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Small ones that travel in datagrams, and ones that do not, over three rows of two sources."""
    source = [random(2, 2, 60, dim, seed=dim, dtype=dtype) for dim in (32, 16)]
    swapped = [np.ascontiguousarray(array.transpose(0, 2, 1, 3)) for array in tokens(3, 20, 9, dtype)]
    strided = [np.concatenate([array, array], axis=2)[:, :, ::2] for array in tokens(3, 30, 10, dtype)]
    apart = [
        np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for array in tokens(3, 1, 11, dtype)
    ]
    mask = np.arange(60) < np.array([[60], [41]])
    return [
        ("append", (1, *source), {"key_mask": mask}),
        ("step", (0, *tokens(3, 300, 1, dtype)), {"return_log_sum_exp": True, "key_starts": [0, 2, 5]}),
        ("step", (0, *tokens(3, 7, 2, dtype)), {"key_lengths": [7, 0, 3], "query_lengths": [7, 1, 3]}),
        ("step", (1, random(3, HEADS, 1, 32, dtype=dtype)), {"output_dtype": "float32", "return_log_sum_exp": True}),
        ("step", (0, *tokens(3, 1, 3, dtype)), {"reorder": [2, 0, 0], "return_log_sum_exp": True}),
        ("step", (0, *swapped), {"layout": "bshd", "truncate": [100, 200, 50], "output_dtype": "float16"}),
        ("step", (0, *strided), {"product_precision": "bfloat16"}),
        ("step", (1, random(3, HEADS, 50, 32, dtype=dtype)), {"query_lengths": [50, 0, 7]}),
        ("append", (0, *tokens(3, 400, 4, dtype)[1:]), {}),
        ("step", (0, tokens(3, 100, 5, dtype)[0]), {"return_log_sum_exp": True}),
        ("step", (0, *apart), {"return_log_sum_exp": True}),
        ("step", (0,), {}),
    ]


@pytest.mark.parametrize("kept", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_both_doors_give_the_same_bits(server: Server, dtype: Any, kept: str) -> None:
    sizes = {"rows": 3, "sources": 2, "row_sources": [0, 1, 1], "max_source_tokens": 100, "dtype": kept}
    with contextlib.ExitStack() as stack:
        one, other = (
            stack.enter_context(opened(stack.enter_context(attnd.Client(target)), door, SELF, CROSS, **sizes))
            for target, door in ((server.unix, "local"), (server.tcp, "grpc"))
        )
        for name, arguments, options in steps(dtype):
            got, expected = (getattr(session, name)(*arguments, **options) for session in (one, other))
            if name == "append":
                assert got == expected
                continue
            assert (got.lengths, got.used_bytes) == (expected.lengths, expected.used_bytes)
            for part in ("output", "log_sum_exp"):
                left, right = getattr(got, part), getattr(expected, part)
                assert (left is None) == (right is None)
                assert left is None or same_bits(left, right)


def test_steps_of_the_same_shapes_are_told_apart(server: Server) -> None:
    """What they have in common is remembered. Here all else differs, and a session that remembers nothing says what is
    right. As many tokens as heads have the same shape in both layouts."""
    layers = [SELF, attnd.SelfLayer(HEADS, DIM, bias=False), attnd.SelfLayer(HEADS, DIM, scale=0.5)]
    q, k, v = tokens(2, HEADS, 1)
    with attnd.Client(server.unix) as client, contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(opened(client, "local", *layers, rows=2)) for _ in range(2))
        for session, layer in itertools.product((one, other), range(3)):
            session.append(layer, k, v)
        choices: Any = (
            (np.float32, np.float16),
            ("bhsd", "bshd"),
            (None, "float32", "float16"),
            (None, "bfloat16"),
            (False, True),
            range(3),
        )
        mixed = list(itertools.product(*choices))
        np.random.default_rng(0).shuffle(mixed)
        for dtype, layout, output_dtype, precision, log_sum_exp, layer in mixed:
            options = {"layout": layout, "output_dtype": output_dtype, "product_precision": precision}
            other._state.forms.clear()
            got, expected = (
                session.step(layer, q.astype(dtype), return_log_sum_exp=log_sum_exp, **options)
                for session in (one, other)
            )
            assert same_bits(got.output, expected.output)
            assert (got.log_sum_exp is None) == (expected.log_sum_exp is None) == (not log_sum_exp)
            assert not log_sum_exp or same_bits(got.log_sum_exp, expected.log_sum_exp)


@doors
def test_outputs_are_the_callers_own(client: attnd.Client, door: str) -> None:
    """Steps that follow write into the same memory."""
    with opened(client, door) as session:
        first = session.attend(0, *tokens(1, 100, 1))
        copy = first.copy()
        session.attend(0, *tokens(1, 100, 2))
        assert same_bits(first, copy)
        assert first.flags.writeable


@doors
def test_close_gives_the_memory_back(make_server: Callable[..., Server], door: str) -> None:
    """When close() returns, the server has it all; however else a session ends, it soon has."""
    with attnd.Client(make_server().unix, **OPTIONS[door]) as client:

        def used() -> tuple[int, int]:
            info = client.server_info()
            assert info.memory is not None
            assert info.sessions is not None
            return info.sessions.open, info.memory.used_bytes

        before = used()
        assert before[0] == 0
        for way in ("close", "with", "drop"):
            session = opened(client, door, rows=4)
            session.attend(0, *tokens(4, 100, 1))
            assert used()[1] >= before[1] + session.reserved_bytes
            if way == "close":
                session.close()
            if way == "with":
                with session:
                    pass
            del session
            deadline = time.monotonic() + 20
            while way == "drop" and used() != before and time.monotonic() < deadline:
                time.sleep(0.01)
            assert used() == before, way


@doors
def test_an_interrupt_ends_the_session_at_the_server(client: attnd.Client, door: str) -> None:
    large = tokens(32, 400, 1)
    session = opened(client, door, rows=32)
    for _ in range(5):
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            while True:
                session.attend(0, *large, truncate=[400] * 32)
        join_all([timer])
        try:
            session.lengths(0)
        except attnd.Unavailable as error:
            assert "interrupted" in str(error)
            break
        # It came between two steps.
    else:
        pytest.fail("the session went on")
    deadline = time.monotonic() + 20
    while any(info.rows == 32 for info in client.list_sessions()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(info.rows != 32 for info in client.list_sessions())


@doors
def test_a_long_step_needs_no_more_than_signs_of_life(make_server: Callable[..., Server], door: str) -> None:
    options = {"keepalive_time": 0.02, "keepalive_timeout": 2.0, "timeout": math.inf}
    server = make_server("--threads=1")
    with attnd.Client(server.unix, **OPTIONS[door], **options) as client, opened(client, door, rows=8) as session:
        reply = session.step(0, *tokens(8, 1500, 1))
        assert reply.compute_time > 0.1
        assert session.lengths(0) == (1500,) * 8


@doors
def test_a_server_that_stops_ends_its_sessions(make_server: Callable[..., Server], door: str) -> None:
    server = make_server("--drain_seconds=1")
    with attnd.Client(server.unix, **OPTIONS[door]) as client:
        session = opened(client, door)
        session.attend(0, *tokens(1, 1, 1))
        assert server.stop() == 0
        for _ in range(2):
            with pytest.raises(attnd.Unavailable):
                session.attend(0, *tokens(1, 1, 1))
        session.close()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_session_after_a_restart_is_local_again(attnd_binary: str, tmp_path: pathlib.Path, stopped: bool) -> None:
    """Also one that is opened while there is no server."""
    servers = [Server(attnd_binary, tmp_path / "server", ())]

    def start() -> None:
        servers.append(Server(attnd_binary, tmp_path / "server", ()))

    try:
        with attnd.Client(servers[0].unix) as client:
            client.server_info()
            session = opened(client, "local")
            servers[0].kill()
            later = threading.Timer(0.5 if stopped else 0.0, start)
            later.start()
            if not stopped:
                join_all([later])
            assert opened(client, "local").lengths(0) == (0,)
            join_all([later])
            with pytest.raises(attnd.Unavailable):
                session.lengths(0)
    finally:
        for server in servers:
            server.kill()


@doors
def test_operators(make_server: Callable[..., Server], door: str) -> None:
    with attnd.Client(make_server().unix, **OPTIONS[door]) as client:
        assert client.list_sessions() == []
        sessions = [
            opened(client, door, rows=3),
            opened(client, door, SELF, CROSS, rows=4, sources=2, max_source_tokens=9),
        ]
        sessions[0].attend(0, *tokens(3, 1, 1))
        first, second = client.list_sessions()
        assert first.id < second.id
        assert (first.model, first.version, first.rows, first.sources, first.layers) == ("t5-tiny", 1, 3, 0, 1)
        assert (second.rows, second.sources, second.layers) == (4, 2, 2)
        assert (first.steps, second.steps) == (1, 0)
        assert (first.reserved_bytes, second.reserved_bytes) == tuple(each.reserved_bytes for each in sessions)
        assert first.used_bytes > second.used_bytes == 0
        assert 0 <= first.idle <= first.age < 60
        assert first.peer
        with pytest.raises(dataclasses.FrozenInstanceError):
            first.id = 7  # type: ignore[misc]
        client.evict_session(first.id)
        for _ in range(2):
            with pytest.raises(attnd.Aborted) as caught:
                sessions[0].lengths(0)
            assert caught.value.field == "session"
        assert [info.id for info in client.list_sessions()] == [second.id]
        use = client.server_info().sessions
        assert use is not None
        assert (use.open, use.evicted) == (1, 1)
        with pytest.raises(attnd.NotFound) as missing:
            client.evict_session(first.id)
        assert missing.value.field == "id"
        for wrong in (-1, 2**64, "one", 1.5):
            with pytest.raises(attnd.InvalidArgument) as caught_here:
                client.evict_session(wrong)  # type: ignore[arg-type]
            assert caught_here.value.field == "id"
        sessions[1].close()


def test_operators_of_the_asyncio_client(make_server: Callable[..., Server]) -> None:
    async def main() -> None:
        async with attnd.AsyncClient(make_server().unix) as client:
            session = await client.session([SELF], "t5-tiny", max_tokens=9)
            (info,) = await client.list_sessions()
            await client.evict_session(info.id)
            with pytest.raises(attnd.Aborted):
                await session.lengths(0)

    asyncio.run(main())


@pytest.mark.parametrize("asynchronous", [False, True], ids=["Session", "AsyncSession"])
@doors
def test_a_step_larger_than_the_server_takes(make_server: Callable[..., Server], door: str, asynchronous: bool) -> None:
    """By gRPC it is refused before it is sent, as it would end the stream. In shared memory it is no message."""
    server = make_server("--max_request_bytes=100000")
    large, small = tokens(1, 40, 1), tokens(1, 10, 2)

    def work(call: Any, client: Any) -> None:
        session = call(client.session([SELF], "t5-tiny", max_tokens=200))
        assert session.transport == door
        if door == "local":
            assert call(session.attend(0, *large)).shape == (1, HEADS, 40, DIM)
            return
        for field, arguments in (("q", large), ("k", (None, large[1], large[2])), ("k", (small[0], *large[1:]))):
            with pytest.raises(attnd.ResourceExhausted) as caught:
                call(session.step(0, *arguments))
            error = caught.value
            assert (error.field, error.expected) == (
                field,
                "a step of at most 100000 bytes (the server's max_request_bytes)",
            )
            assert 2 * large[0].nbytes < int(error.got.split()[0]) < 3 * large[0].nbytes + 200
        assert call(session.append(0, *(array[:, :, :16] for array in large[1:]))) == (16,)
        call(session.attend(0, *small))
        assert call(session.lengths(0)) == (26,)

    with_client(server.unix, asynchronous, work, **OPTIONS[door])


def test_a_step_as_large_as_the_server_takes(make_server: Callable[..., Server]) -> None:
    server = make_server("--max_request_bytes=100000")
    with attnd.Client(server.tcp) as client:
        session = client.session([attnd.CrossLayer(1, 1)], sources=1, max_source_tokens=800_000)
        for mask_bytes in range(99_970, 100_000):
            try:
                session.step(0, key_mask=np.ones((1, 8 * mask_bytes), bool))
            except attnd.ResourceExhausted as error:
                assert (error.field, error.got) == ("step", "100001 bytes")
                assert mask_bytes > 99_970
                break
        else:
            pytest.fail("the message is not as long as it should be")
        assert session.lengths(0) == (0,)


def with_client(target: str, asynchronous: bool, work: Callable[..., Any], **options: Any) -> None:
    """Runs `work(call, client)`, where `call` awaits what the asyncio client's methods give, or takes it as it is."""
    if not asynchronous:
        with attnd.Client(target, **options) as client:
            work(lambda result: result, client)
        return
    loop = asyncio.new_event_loop()
    try:
        twin = attnd.AsyncClient(target, **options)
        work(loop.run_until_complete, twin)
        loop.run_until_complete(twin.close())
    finally:
        loop.close()


def test_other_tasks_go_on_during_a_step(server: Server) -> None:
    """The asyncio client's session uses no thread and does not block the loop."""

    async def main() -> None:
        async with attnd.AsyncClient(server.unix) as client:
            session = await client.session([SELF], "t5-tiny", rows=32, max_tokens=3000)
            assert session.transport == "local"
            before = threading.active_count()
            turns = 0

            async def turn() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            other = asyncio.ensure_future(turn())
            await session.append(0, *tokens(32, 500, 1)[1:])
            turns = 0
            reply = await session.step(0, *tokens(32, 100, 2))
            assert turns > 100
            assert reply.compute_time > 0
            assert threading.active_count() == before
            other.cancel()
            await session.close()

    asyncio.run(main())
