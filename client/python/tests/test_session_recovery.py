"""Sessions whose connection or server is lost, beside ones that lose nothing: the same bits."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import threading
from typing import Any, Callable

import numpy as np
import pytest

import attnd
from attnd import _dtypes
from attnd._duplex import Question
from attnd._rounding import rounded
from attnd._step_message import StepMessage
from attnd.v1 import session_pb2
from conftest import Server
from inputs import same_bits
from waits import join_all, wait_for

HEADS, DIM = 8, 64
ROWS, SOURCES = 4, 2
SELF, CROSS = attnd.SelfLayer(HEADS, DIM), attnd.CrossLayer(HEADS, 32, kv_heads=2, value_head_dim=16)
PLAIN = attnd.SelfLayer(HEADS, 32, bias=False, kv_heads=4)
LAYERS = [CROSS, SELF, PLAIN, CROSS]
ENOUGH = 1 << 28

# By name: the server's target, the client's options, and Session.transport.
DOORS: dict[str, tuple[str, dict[str, Any], str]] = {
    "local": ("unix", {}, "local"),
    "unix": ("unix", {"local_calls": False}, "grpc"),
    "tcp": ("tcp", {}, "grpc"),
}
both = pytest.mark.parametrize("asynchronous", [False, True], ids=["Session", "AsyncSession"])
doors = pytest.mark.parametrize("door", DOORS)


def random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) / 4).astype(dtype)


def token(seed: int, rows: int = 1, length: int = 1) -> list[Any]:
    return [random(rows, HEADS, length, DIM, seed=3 * seed + i) for i in range(3)]


class Caller:
    """A client of either kind. `call` awaits what its methods give, or takes it as it is."""

    def __init__(self, target: str, asynchronous: bool, **options: Any) -> None:
        self._loop = asyncio.new_event_loop() if asynchronous else None
        self.client: Any = (attnd.AsyncClient if asynchronous else attnd.Client)(target, **options)

    def call(self, result: Any) -> Any:
        return result if self._loop is None else self._loop.run_until_complete(result)

    def session(self, *arguments: Any, **options: Any) -> Any:
        return self.call(self.client.session(*arguments, **options))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.call(self.client.close())
        if self._loop is not None:
            self._loop.close()


def caller(server: Server, door: str, asynchronous: bool = False, **options: Any) -> Caller:
    target, more, _ = DOORS[door]
    return Caller(getattr(server, target), asynchronous, **more, **options)


def one_row(caller: Caller, **options: Any) -> Any:
    return caller.session([SELF], "t5-tiny", **{"max_tokens": 500, **options})


def cut(session: Any) -> None:
    """Ends the session's connection, as something on the way would; its server lives."""
    stream = session._state.stream
    if session.transport == "local":
        stream._socket.shutdown(socket.SHUT_RDWR)
    else:
        stream._call.cancel()  # the answer is then CANCELLED, which is no loss
        stream._failure = attnd.Unavailable("cut")


def lose_the_answer(
    session: Any, meanwhile: Callable[[], None] = lambda: None, error: attnd.Error | None = None
) -> None:
    """The next step is done, but what the server answers does not arrive."""
    stream = session._state.stream
    real = stream.ask

    def ask(make: Any, accept: Any, seconds: float) -> Any:
        def swallow(*_: Any) -> Any:
            meanwhile()
            raise error or attnd.Unavailable("lost")

        del stream.ask
        return real(make, swallow, seconds)

    stream.ask = ask


class Steps:
    """Random steps of LAYERS, by the lengths that the session has."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.longest = 0

    def next(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        choose = self._random
        index = int(choose.integers(len(LAYERS)))
        layer: Any = LAYERS[index]
        dtype = choose.choice([np.float32, np.float16])
        options: dict[str, Any] = {"return_log_sum_exp": True}
        count = ROWS if isinstance(layer, attnd.SelfLayer) else SOURCES
        if choose.random() < 0.3:
            options["reorder"] = choose.integers(ROWS, size=ROWS).tolist()
        if choose.random() < 0.15 or self.longest > 350:
            options["truncate"] = choose.integers(150, size=ROWS).tolist()
            self.longest = 150
        if choose.random() < 0.15:
            options["key_starts"] = choose.integers(6, size=ROWS).tolist()
        if count == SOURCES and choose.random() < 0.4:
            options["key_mask"] = choose.random((SOURCES, 40)) < 0.7
        length = int(choose.choice([0, 1, 1, 1, 5, 40]))
        if length and count == SOURCES:
            length = min(length, 3)
        q, k, v = (
            random(n, heads, tokens, dim, seed=int(choose.integers(1 << 30)), dtype=dtype)
            for n, heads, tokens, dim in (
                (ROWS, layer.heads, max(1, length), layer.head_dim),
                (count, layer.kv_heads or layer.heads, length, layer.head_dim),
                (count, layer.kv_heads or layer.heads, length, layer.value_head_dim or layer.head_dim),
            )
        )
        if length and choose.random() < 0.5:
            options["key_lengths"] = choose.integers(length + 1, size=count).tolist()
        self.longest += length
        if length and choose.random() < 0.2:
            q, k, v = (np.ascontiguousarray(array.transpose(0, 2, 1, 3)) for array in (q, k, v))
            options["layout"] = "bshd"
        queries = q if choose.random() < 0.8 else None
        return (index, queries, *((k, v) if length else ())), options


@both
@doors
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_nothing_shows_of_losses(
    server: Server, make_server: Callable[..., Server], dtype: str, door: str, asynchronous: bool
) -> None:
    sizes = {"rows": ROWS, "sources": SOURCES, "max_tokens": 500, "max_source_tokens": 200, "dtype": dtype}
    other = make_server("--shared_memory")
    losses: dict[str, Callable[[], None]] = {
        "server, before a step": other.restart,
        "server, in a step": lambda: lose_the_answer(lossy, other.restart),
        "connection, before a step": lambda: cut(lossy),
        "connection, in a step": lambda: lose_the_answer(lossy),
        "connection and grace time": lambda: (cut(lossy), setattr(lossy._state.recovery, "token", b""))[0],
    }
    with caller(server, door) as one, caller(other, door, asynchronous) as two:
        steady = one.session(LAYERS, "t5-tiny", **sizes)
        lossy = two.session(LAYERS, "t5-tiny", replay_bytes=ENOUGH, **sizes)
        assert lossy.transport == DOORS[door][2]
        assert lossy.replayable
        steps = Steps(seed=len(dtype) + 100 * asynchronous)
        for i in range(60):
            if i % 4 == 3:
                list(losses.values())[i // 4 % len(losses)]()
            arguments, options = steps.next()
            expected = steady.step(*arguments, **options)
            got = two.call(lossy.step(*arguments, **options))
            assert got.lengths == expected.lengths
            for part in ("output", "log_sum_exp"):
                left, right = getattr(got, part), getattr(expected, part)
                assert (left is None) == (right is None)
                assert left is None or same_bits(left, right)
        assert (lossy.replays, lossy.resumes) == (9, 6)
        assert lossy.replayable
        for layer in range(len(LAYERS)):
            assert two.call(lossy.lengths(layer)) == steady.lengths(layer)
        two.call(lossy.close())
        steady.close()


class Proxy:
    """Between a client and a server's TCP port. Counts what the client sends."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._ends += (client, server)
                self._begin(self._copy, client, server, True)
                self._begin(self._copy, server, client, False)

    def _copy(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.sent += len(data) if counts else 0
                sink.sendall(data)

    def cut(self) -> None:
        """Ends all connections."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        join_all([self._threads.pop(0)])
        self.cut()
        join_all(self._threads)
        for end in (*self._ends, self._listener):
            end.close()


@both
@pytest.mark.parametrize("resumes", [True, False])
def test_a_connection_that_is_cut_costs_no_tokens(server: Server, asynchronous: bool, resumes: bool) -> None:
    proxy = Proxy(server.tcp)
    grace: dict[str, Any] = {} if resumes else {"grace": 0}
    with contextlib.closing(proxy), Caller(proxy.target, asynchronous) as one, attnd.Client(server.tcp) as other:
        session = one_row(one, replay_bytes=ENOUGH, **grace)
        with other.session([SELF], "t5-tiny", max_tokens=500) as steady:
            for i in range(3):
                tokens = token(i, length=100)
                expected = steady.attend(0, *tokens)
                assert same_bits(one.call(session.attend(0, *tokens)), expected)
            before = proxy.sent
            proxy.cut()
            tokens = token(9)
            assert same_bits(one.call(session.attend(0, *tokens)), steady.attend(0, *tokens))
            assert (session.resumes, session.replays) == ((1, 0) if resumes else (0, 1))
            kept = 2 * 300 * HEADS * DIM * 4
            assert (proxy.sent - before < 50_000) if resumes else (kept < proxy.sent - before < kept + 50_000)
            one.call(session.close())


@both
@doors
def test_grace_alone_survives_a_connection_and_no_server(
    make_server: Callable[..., Server], door: str, asynchronous: bool
) -> None:
    server = make_server("--shared_memory")
    with caller(server, door, asynchronous) as one:
        session = one_row(one, grace=20)
        assert not session.replayable
        one.call(session.attend(0, *token(1)))
        cut(session)
        one.call(session.attend(0, *token(2)))
        assert one.call(session.lengths(0)) == (2,)
        assert (session.resumes, session.replays) == (1, 0)
        server.restart()
        with pytest.raises(attnd.Unavailable, match=r"; then: resume.token: expected that of a session"):
            one.call(session.attend(0, *token(3)))
        with pytest.raises(attnd.Unavailable, match=r"resume.token"):
            one.call(session.lengths(0))
        one.call(session.close())


@both
@doors
def test_close_frees_a_session_that_could_be_resumed(
    make_server: Callable[..., Server], door: str, asynchronous: bool
) -> None:
    server = make_server("--shared_memory")
    with caller(server, door, asynchronous) as one:
        session = one_row(one, grace=20)
        assert session._state.opened.resume_token
        one.call(session.close())
        assert one.call(one.client.list_sessions()) == []
        with pytest.raises(attnd.FailedPrecondition, match="closed"):
            one.call(session.lengths(0))
        one.call(session.close())


@doors
def test_without_a_log_or_grace_a_loss_is_the_end(make_server: Callable[..., Server], door: str) -> None:
    server = make_server("--shared_memory")
    with caller(server, door) as one:
        session = one_row(one)
        session.attend(0, *token(1))
        assert not session._state.opened.resume_token
        server.restart()
        for _ in range(2):
            with pytest.raises(attnd.Unavailable):
                session.attend(0, *token(1))
        assert (session.replays, session.resumes, session.replay_bytes) == (0, 0, 0)


@both
def test_a_log_that_is_too_small_is_given_up(make_server: Callable[..., Server], asynchronous: bool) -> None:
    server = make_server("--shared_memory")
    with caller(server, "local", asynchronous) as one:
        session = one_row(one, replay_bytes=300_000)
        one.call(session.append(0, *token(1, length=60)[1:]))
        assert session.replayable
        assert 0 < session.replay_bytes <= 300_000
        one.call(session.append(0, *token(1, length=60)[1:]))
        assert (session.replayable, session.replay_bytes) == (False, 0)
        cut(session)
        assert one.call(session.lengths(0)) == (120,)
        assert (session.resumes, session.replays) == (1, 0)
        server.restart()
        with pytest.raises(attnd.Unavailable):
            one.call(session.lengths(0))


def upload(client: attnd.Client, slope: float) -> None:
    client.upload_table("mine", attnd.Table(attnd.AlibiSlopes([slope] * HEADS)), replace=True)


@doors
def test_another_models_bias_is_never_mixed_in(make_server: Callable[..., Server], door: str) -> None:
    server = make_server("--shared_memory")
    with caller(server, door) as one:
        client = one.client
        upload(client, 0.5)
        same, other, gone = (client.session([SELF], "mine", max_tokens=9, replay_bytes=ENOUGH) for _ in range(3))
        expected = same.attend(0, *token(1))
        for session in (other, gone):
            session.append(0, *token(1)[1:])
        server.restart()
        with pytest.raises(attnd.NotFound, match="mine"):
            gone.lengths(0)
        upload(client, 0.25)
        with pytest.raises(attnd.FailedPrecondition, match="content that the session began with") as caught:
            other.lengths(0)
        assert caught.value.field == "model"
        with pytest.raises(attnd.FailedPrecondition, match="content that the session began with"):
            other.lengths(0)
        assert other.replay_bytes == 0
        upload(client, 0.5)
        assert same_bits(same.attend(0, *token(1), truncate=[0]), expected)
        assert same.replays == 1
        assert len(client.list_sessions()) == 1


@both
def test_when_the_server_stays_away_the_loss_is_the_error(
    make_server: Callable[..., Server], asynchronous: bool
) -> None:
    server = make_server("--shared_memory")
    with caller(server, "local", asynchronous, retry=attnd.Retry(max_time=0.3)) as one:
        session = one_row(one, replay_bytes=ENOUGH)
        one.call(session.attend(0, *token(1)))
        server.kill()
        with pytest.raises(attnd.Unavailable, match=r"connection to the server was lost.*; then: .*attempt") as caught:
            one.call(session.attend(0, *token(2)))
        with pytest.raises(attnd.Unavailable) as again:
            one.call(session.attend(0, *token(2)))
        assert str(again.value) == str(caught.value)
        assert session.replay_bytes == 0


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (attnd.Unavailable("lost"), True),
        (attnd.errors.Unknown("Stream removed"), True),
        (attnd.errors.Unknown("no"), False),
        (attnd.Cancelled("no"), False),
        (attnd.DeadlineExceeded("no"), False),
        (attnd.Internal("no"), False),
    ],
)
def test_what_is_a_loss(server: Server, error: attnd.Error, goes_on: bool) -> None:
    with caller(server, "local") as one, one_row(one, replay_bytes=ENOUGH, grace=0) as session:
        lose_the_answer(session, error=error)
        if goes_on:
            assert session.append(0, *token(1)[1:]) == (1,)
            return
        for _ in range(2):
            with pytest.raises(type(error), match="no"):
                session.append(0, *token(1)[1:])
        assert (session.replays, session.resumes) == (0, 0)


def test_other_ends_are_ends(make_server: Callable[..., Server]) -> None:
    """What somebody has decided is not undone."""
    server = make_server("--shared_memory")
    for door in DOORS:
        with caller(server, door) as one:
            session = one_row(one, replay_bytes=ENOUGH)
            session.attend(0, *token(1))
            (info,) = one.client.list_sessions()
            one.client.evict_session(info.id)
            with pytest.raises(attnd.Aborted):
                for _ in range(100):
                    session.lengths(0)
            with pytest.raises(attnd.Aborted):
                session.lengths(0)
            assert (session.replays, session.resumes, session.replay_bytes) == (0, 0, 0)


@both
@doors
def test_an_interrupted_step_ends_the_session(server: Server, door: str, asynchronous: bool) -> None:
    def interrupt() -> None:
        raise GeneratorExit

    with caller(server, door, asynchronous) as one:
        session = one_row(one, replay_bytes=ENOUGH, grace=0)
        one.call(session.append(0, *token(1)[1:]))
        lose_the_answer(session, interrupt)
        with pytest.raises(GeneratorExit):
            one.call(session.append(0, *token(2)[1:]))
        for _ in range(2):
            with pytest.raises(attnd.Unavailable, match="interrupted"):
                one.call(session.lengths(0))
        assert (session.replays, session.resumes, session.replay_bytes) == (0, 0, 0)


def test_closing_a_session_ends_its_recovery(make_server: Callable[..., Server]) -> None:
    server = make_server("--shared_memory")
    with caller(server, "local") as one:
        session = one_row(one, replay_bytes=ENOUGH)
        closing = threading.Thread(target=session.close)

        def close() -> None:
            closing.start()
            wait_for(lambda: session._state.recovery.over is not None)

        lose_the_answer(session, close)
        with pytest.raises(attnd.FailedPrecondition, match="closed"):
            session.append(0, *token(2)[1:])
        join_all([closing])


@doors
def test_a_step_has_what_is_left_of_its_time(
    make_server: Callable[..., Server], door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[float] = []
    question = StepMessage.question

    def recorded(self: StepMessage) -> Question:
        found = question(self)
        timeout = session_pb2.SessionStep.FromString(found.body).timeout
        said.append(timeout.seconds + timeout.nanos / 1e9)
        return found

    monkeypatch.setattr(StepMessage, "question", recorded)
    server = make_server("--shared_memory")
    with caller(server, door) as one, one_row(one, replay_bytes=ENOUGH) as session:
        lose_the_answer(session, server.restart)
        session.append(0, *token(1)[1:], timeout=50.5)
        lose_the_answer(session, server.restart)
        session.append(0, *token(1)[1:], timeout=math.inf)
        assert said[0] == 50.5
        assert 0 < said[1] < 50.5
        assert said[2:] == [0, 0]


@doors
def test_a_step_that_is_refused_is_not_logged(server: Server, door: str) -> None:
    with caller(server, door) as one, one_row(one, replay_bytes=ENOUGH, grace=0, max_tokens=50) as session:
        session.append(0, *token(1, length=40)[1:])
        for options in ({"expected_lengths": 3}, {}):
            with pytest.raises(attnd.Error):
                session.append(0, *token(2, length=20)[1:], truncate=[40], **options)
        cut(session)
        assert session.lengths(0) == (40,)
        assert session.replays == 1


@doors
def test_pieces_fit_the_server(make_server: Callable[..., Server], door: str) -> None:
    server = make_server("--shared_memory", "--max_request_bytes=100KiB")
    with caller(server, door) as one, one_row(one, replay_bytes=ENOUGH, grace=0) as session, one_row(one) as steady:
        for i in range(20):
            for each in (session, steady):
                each.append(0, *token(i, length=20)[1:])
        cut(session)
        q = token(30)[0]
        assert same_bits(session.attend(0, q), steady.attend(0, q))
        assert session.replays == 1


def test_threads_share_a_session_that_is_lost(make_server: Callable[..., Server]) -> None:
    server = make_server("--shared_memory")
    failures: list[BaseException] = []
    with caller(server, "local") as one, one_row(one, replay_bytes=ENOUGH) as session:

        def work() -> None:
            try:
                for i in range(30):
                    session.append(0, *token(i)[1:])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            server.restart()
        join_all(threads)
        assert not failures
        assert session.lengths(0) == (90,)


@pytest.mark.parametrize("kept", ["float16", "bfloat16"])
def test_what_is_kept_is_rounded_as_the_server_does(server: Server, kept: str) -> None:
    """A query that sees one key gives its value."""
    code = _dtypes.parse("dtype", kept)
    generator = np.random.default_rng(0)
    bits = generator.integers(1 << 32, size=32 * 4096, dtype=np.uint32)
    # Halfway between two, and its neighbours.
    bits[1::4] = bits[1::4] & 0xFFFF0000 | 0x8000
    bits[2::4] = bits[2::4] & 0xFFFFE000 | 0x1000
    bits[3::4] = generator.integers(0x33000000, 0x38900000, size=bits[3::4].size)  # float16's denormal numbers
    values = bits.view(np.float32)
    values = np.where(np.isfinite(values), values, 0).reshape(32, 1, 1, 4096)
    layer = attnd.SelfLayer(1, 8, bias=False, value_head_dim=4096)
    q, k = (np.zeros((32, 1, 1, 8), np.float32) for _ in range(2))
    with attnd.Client(server.unix) as client, client.session([layer], rows=32, max_tokens=1, dtype=kept) as session:
        got = session.attend(0, q, k, values, output_dtype="float32")
    expected = rounded(rounded(values, _dtypes.FP32, code), code, _dtypes.FP32)
    assert np.array_equal(got, expected, equal_nan=True)


@pytest.mark.parametrize("kept", ["bfloat16", "float32"])
def test_torch_tensors(server: Server, kept: str) -> None:
    torch = pytest.importorskip("torch")
    with caller(server, "local") as one:
        options = {"dtype": kept, "rows": 2}
        with one_row(one, replay_bytes=ENOUGH, grace=0, **options) as session, one_row(one, **options) as steady:
            for i, dtype in enumerate((torch.bfloat16, torch.float32, torch.float16)):
                tokens = [torch.from_numpy(array).to(dtype) for array in token(i, rows=2, length=5)]
                cut(session)
                assert torch.equal(session.attend(0, *tokens), steady.attend(0, *tokens))
            assert session.replays == 3


@doors
def test_a_forked_child_leaves_the_session_alone(make_server: Callable[..., Server], door: str) -> None:
    server = make_server("--shared_memory")
    with caller(server, door) as one, one_row(one, replay_bytes=ENOUGH) as session:
        session.append(0, *token(1)[1:])
        with session._state.recovery.turn:  # as if a thread made a step
            child = os.fork()
            if child == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    signal.alarm(20)
                    with pytest.raises(attnd.FailedPrecondition):
                        session.lengths(0)
                    session.close()
                    code = 0
                os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
        assert session.lengths(0) == (1,)
        assert session.resumes == 0
        server.restart()
        assert session.lengths(0) == (1,)
        assert session.replays == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("replay_bytes", -1), ("replay_bytes", "x"), ("grace", -1), ("grace", math.nan), ("grace", "x")],
)
def test_arguments_are_checked(server: Server, name: str, value: Any) -> None:
    with caller(server, "tcp") as one, pytest.raises(attnd.InvalidArgument) as caught:
        one_row(one, **{name: value})
    assert caught.value.field == name
