"""Sessions against whole calls: the same bits, over a local socket as by gRPC."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable

import numpy as np
import pytest

import attnd
from conftest import Server
from inputs import same_bits
from waits import join_all

HEADS, DIM = 8, 64
SELF, CROSS = attnd.SelfLayer(HEADS, DIM), attnd.CrossLayer(HEADS, 32, value_head_dim=16)


def random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) / 4).astype(dtype)


def token(rows: int, seed: int, dtype: Any = np.float32, length: int = 1) -> list[Any]:
    return [random(rows, HEADS, length, DIM, seed=3 * seed + i, dtype=dtype) for i in range(3)]


# By name: the server's target, the client's options, and Session.transport.
DOORS: dict[str, tuple[str, dict[str, Any], str]] = {
    "local": ("unix", {}, "local"),
    "tcp": ("tcp", {}, "grpc"),
    "unix": ("unix", {"local_calls": False}, "grpc"),
}
both = pytest.mark.parametrize("asynchronous", [False, True], ids=["Session", "AsyncSession"])
doors = pytest.mark.parametrize("door", ["local", "tcp"])


def connected(server: Server, door: str, kind: Any = attnd.Client) -> Any:
    target, options, _ = DOORS[door]
    return kind(getattr(server, target), **options)


def one_self_layer(door: str, client: Any, call: Any = lambda result: result, **options: Any) -> Any:
    """A session, by the way that is meant."""
    session = call(client.session([SELF], "t5-tiny", **options))
    assert session.transport == DOORS[door][2]
    return session


def ask(server: Server, door: str, asynchronous: bool, work: Callable[..., Any]) -> None:
    """Runs `work(call, client)`, where `call` awaits what the asyncio client's methods give, or takes it as it is."""
    if not asynchronous:
        with connected(server, door) as client:
            work(lambda result: result, client)
        return
    loop = asyncio.new_event_loop()
    try:
        client = connected(server, door, attnd.AsyncClient)
        work(loop.run_until_complete, client)
        loop.run_until_complete(client.close())
    finally:
        loop.close()


@both
@pytest.mark.parametrize("door", DOORS)
def test_decoding_gives_what_whole_calls_give(server: Server, door: str, asynchronous: bool) -> None:
    def work(call: Any, client: Any) -> None:
        session = one_self_layer(door, client, call, rows=2, max_tokens=100)
        whole: list[Any] = []
        for i, length in enumerate([5, 1, 1, 3, 1]):
            whole.append(token(2, i, length=length))
            q, k, v = (np.concatenate([arrays[part] for arrays in whole], axis=2) for part in range(3))
            output, lse = call(
                session.attend(0, *whole[-1], return_log_sum_exp=True, expected_lengths=k.shape[2] - length)
            )
            expected = call(client.attend(q[:, :, -length:], k, v, "t5-tiny", mask="causal", return_log_sum_exp=True))
            assert same_bits(output, expected[0])
            assert same_bits(lse, expected[1])
        assert call(session.lengths(0)) == (11, 11)
        call(session.close())

    ask(server, door, asynchronous, work)


@both
@doors
def test_beams_share_their_source(server: Server, door: str, asynchronous: bool) -> None:
    def work(call: Any, client: Any) -> None:
        sizes = {"rows": 4, "sources": 2, "max_tokens": 9, "max_source_tokens": 50}
        session = call(client.session([SELF, CROSS], "t5-tiny", dtype="bfloat16", **sizes))
        assert session.transport == DOORS[door][2]
        k, v = random(2, HEADS, 40, 32, seed=1), random(2, HEADS, 40, 16, seed=2)
        mask = np.arange(40) < np.array([[40], [33]])
        assert call(session.append(1, k, v, key_mask=mask)) == (40, 40)
        tokens = token(4, 5)
        reply = call(session.step(0, *tokens))
        assert reply.lengths == (1,) * 4
        assert reply.used_bytes > 0
        assert reply.log_sum_exp is None
        call(session.reorder([1, 0, 3, 3]))
        q = random(4, HEADS, 1, 32, seed=3)
        output = call(session.attend(1, q))

        def rounded(array: Any) -> Any:
            torch = pytest.importorskip("torch")
            return torch.from_numpy(array).bfloat16().float().numpy()

        expected = call(
            client.attend(q, rounded(k), rounded(v), None, key_mask=mask[[0, 0, 1, 1]], kv_rows=[0, 0, 1, 1])
        )
        assert same_bits(output, expected)
        call(session.close())

    ask(server, door, asynchronous, work)


@doors
def test_rows_of_other_lengths(server: Server, door: str) -> None:
    with connected(server, door) as client, one_self_layer(door, client, rows=3, max_tokens=20) as session:
        q, k, v = token(3, 1, length=4)
        output = session.attend(0, q, k, v, key_lengths=[4, 2, 0], query_lengths=[4, 2, 0], key_starts=[1, 0, 0])
        assert session.lengths(0) == (4, 2, 0)
        expected = client.attend(
            q, k, v, "t5-tiny", query_offset=0, key_lengths=[4, 2, 0], query_lengths=[4, 2, 0], key_starts=[1, 0, 0]
        )
        assert same_bits(output, expected)
        assert session.append(0, k, v, truncate=[2, 2, 2], key_lengths=[1, 1, 1]) == (3, 3, 1)
        assert session.append(0, k.transpose(0, 2, 1, 3).copy(), v.transpose(0, 2, 1, 3), layout="bshd") == (7, 7, 5)


@doors
def test_torch(server: Server, door: str) -> None:
    torch = pytest.importorskip("torch")
    with connected(server, door) as client, one_self_layer(door, client, rows=2, max_tokens=20) as session:
        q, k, v = (torch.from_numpy(array).bfloat16() for array in token(2, 1, length=3))
        output = session.attend(0, q, k, v)
        assert isinstance(output, torch.Tensor)
        assert output.dtype is torch.bfloat16
        assert session.attend(0, q.float(), output_dtype="float16").dtype is torch.float16


@doors
def test_nothing_is_half_done(server: Server, door: str) -> None:
    with connected(server, door) as client, one_self_layer(door, client, rows=2, max_tokens=3) as session:
        tokens = token(2, 1)
        session.attend(0, *tokens)
        with pytest.raises(attnd.OutOfRange) as too_many:
            session.attend(0, *token(2, 2, length=3), reorder=[1, 1])
        assert too_many.value.field == "key_length"
        with pytest.raises(attnd.FailedPrecondition) as other:
            session.attend(0, *tokens, expected_lengths=[1, 7])
        assert other.value.field == "expected_lengths[1]"
        assert other.value.expected.startswith("1 (what row 1 has)")
        with pytest.raises(attnd.DeadlineExceeded):
            session.attend(0, *tokens, timeout=0)
        assert session.lengths(0) == (1, 1)
        session.attend(0, *tokens)
        assert session.lengths(0) == (2, 2)


@doors
def test_mistakes(server: Server, door: str) -> None:
    q, k, v = token(2, 1)
    with connected(server, door) as client:
        with client.session([SELF, CROSS], "t5-tiny", rows=2, sources=1, max_tokens=9, max_source_tokens=9) as session:
            for field, wrong in (
                ("layer", lambda: session.attend(2, q)),
                ("q", lambda: session.attend(0, q[:1])),
                ("q", lambda: session.attend(0, np.ones((2, HEADS, 1), np.float32))),
                ("k", lambda: session.append(1, k, v)),
                ("v", lambda: session.append(0, k, v[:, :, :, :3])),
                ("v", lambda: session.append(0, k, None)),
                ("k.dtype", lambda: session.attend(0, q, k.astype(np.float16), v)),
                ("v.sequence", lambda: session.append(0, k, np.concatenate([v, v], axis=2))),
                ("reorder", lambda: session.reorder([0])),
                ("reorder[1]", lambda: session.reorder([0, 2])),
                ("key_mask", lambda: session.attend(1, random(2, HEADS, 1, 32), key_mask=np.ones((2, 3), bool))),
                ("key_lengths[0]", lambda: session.append(0, k, v, key_lengths=[2, 0])),
                ("layout", lambda: session.attend(0, q, layout="x")),
                ("expected_lengths", lambda: session.attend(0, q, expected_lengths=-1)),
                ("timeout", lambda: session.attend(0, q, timeout="soon")),
            ):
                with pytest.raises(attnd.InvalidArgument) as caught:
                    wrong()
                assert caught.value.field == field
            assert session.lengths(0) == (0, 0)
            assert "2 rows, 1 sources, 2 layers" in repr(session)
            assert session.reserved_bytes > 0
            assert session.page_tokens == 64
        for field, opening in (
            ("layers[0]", lambda: client.session([None], "t5-tiny", max_tokens=1)),
            ("layers", lambda: client.session(SELF, "t5-tiny", max_tokens=1)),
            ("layers[0].scale", lambda: client.session([attnd.SelfLayer(8, 64, scale=float("nan"))], "t5-tiny")),
            ("row_sources", lambda: client.session([SELF], "t5-tiny", max_tokens=1, row_sources=[0])),
            ("sources", lambda: client.session([CROSS], rows=1, sources=2)),
            ("open.max_tokens", lambda: client.session([SELF], "t5-tiny")),
            ("open.layers[0].heads", lambda: client.session([attnd.SelfLayer(3, 64)], "t5-tiny", max_tokens=1)),
        ):
            with pytest.raises(attnd.InvalidArgument) as caught:
                opening()
            assert caught.value.field == field
        with pytest.raises(attnd.NotFound):
            client.session([SELF], "nobody", max_tokens=1)


@both
@doors
def test_ends(make_server: Callable[..., Server], door: str, asynchronous: bool) -> None:
    """An evicted session, one whose server is killed, and a closed one say what has happened, again and again."""
    server = make_server("--session_idle=1500ms", "--drain_seconds=1")

    def work(call: Any, client: Any) -> None:
        idle = one_self_layer(door, client, call, max_tokens=9)
        if asynchronous:
            call(asyncio.sleep(2.5))  # grpc.aio learns of a stream's end in the loop
        else:
            time.sleep(2.5)
        for _ in range(2):
            with pytest.raises(attnd.Aborted, match="session_idle"):
                call(idle.attend(0, *token(1, 1)))
        call(idle.close())
        closed = one_self_layer(door, client, call, max_tokens=9)
        call(closed.close())
        call(closed.close())
        with pytest.raises(attnd.FailedPrecondition, match="closed"):
            call(closed.lengths(0))
        lost = one_self_layer(door, client, call, max_tokens=9)
        call(lost.attend(0, *token(1, 1)))
        server.kill()
        with pytest.raises(attnd.Unavailable):
            call(lost.attend(0, *token(1, 1)))

    ask(server, door, asynchronous, work)


@doors
def test_a_stopping_server_says_so(make_server: Callable[..., Server], door: str) -> None:
    server = make_server("--drain_seconds=3")
    with connected(server, door) as client, one_self_layer(door, client, max_tokens=9) as session:
        assert session.going_away is None
        server.process.terminate()
        time.sleep(0.5)
        session.attend(0, *token(1, 1))
        assert session.going_away == 3


@both
@doors
def test_a_server_that_answers_nothing(
    make_server: Callable[..., Server], door: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnd._duplex.SPARE_SECONDS", 0.2)
    monkeypatch.setattr("attnd._duplex.CLOSE_SECONDS", 0.2)
    server = make_server()

    def work(call: Any, client: Any) -> None:
        first, second = (one_self_layer(door, client, call, max_tokens=9) for _ in range(2))
        server.process.send_signal(signal.SIGSTOP)
        os.waitpid(server.process.pid, os.WUNTRACED)  # until all of its threads have stopped
        try:
            begun = time.monotonic()
            for _ in range(2):
                with pytest.raises(attnd.DeadlineExceeded, match="given up"):
                    call(first.attend(0, *token(1, 1), timeout=0.2))
            call(first.close())
            call(second.close())
            with pytest.raises(attnd.DeadlineExceeded):
                call(client.session([SELF], "t5-tiny", max_tokens=9, timeout=0.2))
            assert time.monotonic() - begun < 10
        finally:
            server.process.send_signal(signal.SIGCONT)

    ask(server, door, asynchronous, work)


@doors
def test_dropped_sessions_leave_nothing(server: Server, door: str) -> None:
    with connected(server, door) as client:
        client.session([SELF], "t5-tiny", max_tokens=9)
        before = threading.active_count()
        for _ in range(20):
            client.session([SELF], "t5-tiny", max_tokens=9)
        gc.collect()
        deadline = time.monotonic() + 20
        while threading.active_count() > before + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= before + 2


@doors
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_the_parents_session_alone(server: Server, door: str) -> None:
    code = f"""
import os, sys, numpy as np, attnd
client = attnd.Client({getattr(server, DOORS[door][0])!r})
session = client.session([attnd.SelfLayer(8, 64)], "t5-tiny", max_tokens=9)
assert session.transport == {DOORS[door][2]!r}
one = np.ones((1, 8, 1, 64), np.float32)
session.attend(0, one, one, one)
for way in ("close", "drop", "exit"):
    pid = os.fork()
    if pid == 0:
        if way == "close":
            session.close()
        if way == "drop":
            del session
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0, way
    session.attend(0, one, one, one)
print(session.lengths(0))
os._exit(0)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if door == "tcp":
        environment["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # which waits for the end of streams
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.stdout.decode() == "(4,)\n", done.stderr.decode()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_the_parents_session(make_server: Callable[..., Server]) -> None:
    server = make_server()
    code = f"""
import os, sys, time, attnd
client = attnd.Client({server.unix!r})
session = client.session([attnd.SelfLayer(8, 64)], "t5-tiny", max_tokens=9)
assert session.transport == "local"
pid = os.fork()
if pid == 0:
    sys.stdin.read()
    os._exit(0)
print(pid, flush=True)
os._exit(0)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-B", "-c", code]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.wait(30) == 0
        with attnd.Client(server.tcp) as client:
            deadline = time.monotonic() + 20
            while client.list_sessions() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert client.list_sessions() == []
        os.kill(child, 0)  # it lives


@doors
def test_threads_take_turns(server: Server, door: str) -> None:
    with connected(server, door) as client, one_self_layer(door, client, max_tokens=200) as session:

        def steps() -> None:
            for _ in range(20):
                session.attend(0, *token(1, 1))

        threads = [threading.Thread(target=steps) for _ in range(4)]
        for thread in threads:
            thread.start()
        join_all(threads)
        assert session.lengths(0) == (80,)


@doors
def test_a_cancelled_step_ends_the_session(server: Server, door: str) -> None:
    async def work() -> None:
        async with connected(server, door, attnd.AsyncClient) as client:
            session = await client.session([SELF], "t5-tiny", rows=64, max_tokens=3000)
            task = asyncio.ensure_future(session.attend(0, *token(64, 1, length=500)))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(attnd.Unavailable):
                await session.lengths(0)

    asyncio.run(work())


def test_twins() -> None:
    names = {name for name in vars(attnd.Session) if not name.startswith("_")}
    assert names == {name for name in vars(attnd.AsyncSession) if not name.startswith("_")}
    for name in names:
        assert inspect.signature(getattr(attnd.Session, name)) == inspect.signature(getattr(attnd.AsyncSession, name))
        assert inspect.iscoroutinefunction(getattr(attnd.AsyncSession, name))
