"""Sessions over the local socket, with servers that do what a real one does not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import pathlib
import signal
import threading
import time
from typing import Any, Callable, Iterator, List

import numpy as np
import pytest

import attnd
from attnd.v1 import local_pb2, session_pb2, types_pb2
from conftest import Server
from waits import join_all

from .fake_server import FakeServer, Said, descriptors, wait_for

SELF = attnd.SelfLayer(8, 64)
both = pytest.mark.parametrize("asynchronous", [False, True], ids=["Session", "AsyncSession"])


def tensors(length: int = 1, seed: int = 0) -> List[Any]:
    random = np.random.default_rng(seed)
    return [random.standard_normal((1, 8, length, 64)).astype(np.float32) for _ in range(3)]


@pytest.fixture
def fake(make_server: Callable[..., Server]) -> Iterator[FakeServer]:
    """In the place of a real server's local socket. That server answers what comes by gRPC."""
    server = make_server()
    path = pathlib.Path(f"{server.socket}.shm")
    path.unlink()
    found = FakeServer(path)
    found.target = server.unix  # type: ignore[attr-defined]
    yield found
    found.stop()


def ask(fake: FakeServer, asynchronous: bool, work: Callable[..., Any], **options: Any) -> None:
    """Runs `work(call, client)`, where `call` awaits what the asyncio client's methods give, or takes it as it is."""
    target: str = fake.target  # type: ignore[attr-defined]
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


def opened(call: Any, client: Any, **options: Any) -> Any:
    session = call(client.session([SELF], "t5-tiny", max_tokens=4000, **options))
    assert session.transport == "local"
    return session


def to_steps(say: Callable[[FakeServer, local_pb2.LocalRequest], Said]) -> Any:
    """For FakeServer.on_session: says something else to steps."""

    def on_session(server: FakeServer, request: local_pb2.LocalRequest) -> Said:
        return say(server, request) if request.session.HasField("step") else server.said(request)

    return on_session


def end(code: int = 0, **more: Any) -> local_pb2.LocalReply:
    return local_pb2.LocalReply(session_end=local_pb2.LocalSessionEnd(code=code, **more))


def going_away(seconds: int) -> local_pb2.LocalReply:
    reply = session_pb2.SessionReply()
    reply.going_away.time_left.seconds = seconds
    return local_pb2.LocalReply(session=reply)


def evicted() -> local_pb2.LocalReply:
    detail = types_pb2.ErrorDetail(field="session", expected="a step", got="none")
    return end(10, message="the session was idle", detail=detail)


def numbered(step: int) -> Callable[[FakeServer, local_pb2.LocalRequest], Said]:
    def say(server: FakeServer, request: local_pb2.LocalRequest) -> Said:
        reply = server.stepped(request.session)
        reply.session.result.step = step
        return [reply]

    return say


def too_short(server: FakeServer, request: local_pb2.LocalRequest) -> Said:
    reply = server.stepped(request.session)
    reply.session.output = bytes(5)
    return [reply]


FAULTS: Any = {
    "garbage": (lambda server, request: [b"\xff\xff\xff"], attnd.Internal, "no attnd.v1.LocalReply"),
    "a datagram of zeros": (lambda server, request: [bytes(256)], attnd.Internal, "no attnd.v1.LocalReply"),
    "another welcome": (
        lambda server, request: [local_pb2.LocalReply(welcome=local_pb2.LocalWelcome())],
        attnd.Internal,
        "none to a session: welcome",
    ),
    "an answer to a call": (
        lambda server, request: [local_pb2.LocalReply(answer=local_pb2.LocalAnswer())],
        attnd.Internal,
        "none to a session: answer",
    ),
    "an opening": (
        lambda server, request: [local_pb2.LocalReply(session=session_pb2.SessionReply())],
        attnd.Internal,
        "none to the step",
    ),
    "another step": (numbered(7), attnd.Internal, "none to the step"),
    "too short an output": (too_short, attnd.Internal, "output: expected 2048 bytes, got 5"),
    "an answer to nothing": (lambda server, request: [server._fixed(bytes(40), [], [])], attnd.Internal, "not sent"),
    "an end": (lambda server, request: [evicted()], attnd.Aborted, "the session was idle"),
    "an end without an error": (lambda server, request: [end()], attnd.Internal, "before it had answered"),
    "an end and a closed connection": (lambda server, request: None, attnd.Unavailable, "is gone"),
}


@both
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_server(fake: FakeServer, fault: str, asynchronous: bool) -> None:
    say, error, words = FAULTS[fault]
    fake.on_session = to_steps(say)

    def work(call: Any, client: Any) -> None:
        session = opened(call, client)
        for _ in range(2):
            with pytest.raises(error, match=words) as caught:
                call(session.attend(0, *tensors()))
            assert type(caught.value) is error
        assert caught.value.field == ("session" if error is attnd.Aborted else "")
        wait_for(lambda: fake.ends == 1 or fault == "an end and a closed connection")
        steps = [request for request in fake.sessions if request.session.HasField("step")]
        assert len(steps) == 1
        call(session.close())

    ask(fake, asynchronous, work)


@both
def test_an_end_while_nobody_asks(fake: FakeServer, asynchronous: bool) -> None:
    """The server ends the session and closes: the next step finds out why."""

    def work(call: Any, client: Any) -> None:
        for closes in (False, True):
            session = opened(call, client)
            fake.connections[-1].send(evicted().SerializeToString())
            if closes:
                fake.connections[-1].shutdown(2)
            with pytest.raises(attnd.Aborted) as caught:
                call(session.attend(0, *tensors()))
            assert (caught.value.field, caught.value.expected, caught.value.got) == ("session", "a step", "none")

    ask(fake, asynchronous, work)


@both
def test_a_lost_connection(fake: FakeServer, asynchronous: bool) -> None:
    def work(call: Any, client: Any) -> None:
        session = opened(call, client)
        fake.connections[-1].shutdown(2)
        for _ in range(2):
            with pytest.raises(attnd.Unavailable, match="what the session kept is gone"):
                call(session.attend(0, *tensors()))

    ask(fake, asynchronous, work)


@both
def test_a_silent_server_is_asked_for_a_sign_of_life(fake: FakeServer, asynchronous: bool) -> None:
    """As long as it gives one the step goes on, up to its own time; without one the session is lost."""

    def work(call: Any, client: Any) -> None:
        session = opened(call, client)
        fake.on_session = to_steps(lambda server, request: [])
        with pytest.raises(attnd.DeadlineExceeded, match="given up"):
            call(session.attend(0, *tensors(), timeout=0.3))
        assert 2 <= fake.signs <= 20
        session = opened(call, client)
        fake.silent = True
        begun = time.monotonic()
        with pytest.raises(attnd.Unavailable, match="no sign of life"):
            call(session.attend(0, *tensors(), timeout=math.inf))
        assert time.monotonic() - begun < 5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnd._duplex.SPARE_SECONDS", 0.2)
        ask(fake, asynchronous, work, keepalive_time=0.05, keepalive_timeout=0.5)


@both
def test_signs_of_life_and_regions_are_told_apart(fake: FakeServer, asynchronous: bool) -> None:
    """The fixed messages have no numbers: their order says which one an answer is to."""
    held: List[bytes] = []
    fixed = fake._fixed

    def late(data: bytes, fds: List[int], mine: List[bytes]) -> bytes:
        if len(fake.sizes) < 1:
            return fixed(data, fds, mine)
        registers = bool(fds)
        held.append(fixed(data, fds, mine))
        if registers:
            time.sleep(0.2)  # the client asks for signs of life meanwhile
        return held.pop(0)

    def work(call: Any, client: Any) -> None:
        session = opened(call, client)
        fake._fixed = late  # type: ignore[method-assign]
        q, k, v = tensors(500)
        for _ in range(3):
            assert np.array_equal(call(session.attend(0, q, k, v)), q)
        assert fake.signs >= 1
        call(session.close())

    ask(fake, asynchronous, work, keepalive_time=0.05, keepalive_timeout=5.0)


@both
def test_a_stopping_server_may_say_so_at_any_time(fake: FakeServer, asynchronous: bool) -> None:
    fixed = fake._fixed

    def first(data: bytes, fds: List[int], mine: List[bytes]) -> bytes:
        if fake.sessions:
            fake.connections[-1].send(going_away(9).SerializeToString())
        return fixed(data, fds, mine)

    fake._fixed = first  # type: ignore[method-assign]

    def work(call: Any, client: Any) -> None:
        session = opened(call, client)
        assert session.going_away is None
        q, k, v = tensors(500)
        assert np.array_equal(call(session.attend(0, q, k, v)), q)
        assert session.going_away == 9
        call(session.close())

    ask(fake, asynchronous, work)


@both
def test_the_region(fake: FakeServer, asynchronous: bool) -> None:
    """Grows with the steps, is given back when it is far too large, and goes with the connection."""

    def work(call: Any, client: Any) -> None:
        session = opened(call, client)
        small = call(session.attend(0, *tensors()))
        assert np.array_equal(small, tensors()[0])
        assert len(fake.regions) == 1
        for length, shared in ((2, False), (3, True)):  # q, k, v and the output have 16 KiB together, or more
            q = tensors(length)[0]
            assert np.array_equal(call(session.attend(0, *tensors(length))), q)
            assert fake.sessions[-1].session.step.HasField("q_shared") == shared
        for length in (100, 500, 1000, 100):
            q, k, v = tensors(length)
            output, log_sum_exp = call(
                session.attend(0, q, k.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3), v, return_log_sum_exp=True)
            )
            assert np.array_equal(output, q)
            assert np.array_equal(log_sum_exp, np.zeros((1, 8, length)))
            step = fake.sessions[-1].session
            for name, sent in (("q", q), ("k", k), ("v", v)):
                assert getattr(step, name) == b""
                assert fake.memory(getattr(step.step, f"{name}_shared"), sent.nbytes) == sent.tobytes()
            wait_for(lambda: len(fake.regions) == 1)
        q = tensors(1000)[0]
        assert fake.sizes[0] == 64 << 10
        assert fake.sizes == sorted(fake.sizes)
        assert fake.sizes[-1] < 2 * 5 * q.nbytes
        assert np.array_equal(output, tensors(100)[0])  # it is the caller's, and does not change any more
        q, k, v = tensors(4000)
        call(session.attend(0, q, k, v))
        assert fake.sizes[-1] > 4 * q.nbytes
        call(session.attend(0, *tensors()))
        wait_for(lambda: len(fake.regions) == 0)
        call(session.attend(0, *tensors(100)))
        assert len(fake.regions) == 1
        assert fake.sizes[-1] < 2 << 20
        call(session.close())
        wait_for(lambda: len(fake.regions) == 0)

    ask(fake, asynchronous, work)


@both
def test_a_region_that_the_server_does_not_take(fake: FakeServer, asynchronous: bool) -> None:
    def work(call: Any, client: Any) -> None:
        session = opened(call, client)
        fake.registers = 8
        for _ in range(2):
            with pytest.raises(attnd.ResourceExhausted, match="no memory to share"):
                call(session.attend(0, *tensors(500)))
        assert np.array_equal(call(session.attend(0, *tensors())), tensors()[0])
        fake.registers = 0
        assert np.array_equal(call(session.attend(0, *tensors(500))), tensors(500)[0])
        steps = [request.session.step.step for request in fake.sessions if request.session.HasField("step")]
        assert steps == [1, 2]
        call(session.close())

    ask(fake, asynchronous, work)


@both
def test_fields_that_fill_a_datagram(fake: FakeServer, asynchronous: bool) -> None:
    def work(call: Any, client: Any) -> None:
        layers = [SELF, attnd.CrossLayer(8, 64)]
        session = call(client.session(layers, "t5-tiny", sources=1, max_tokens=9, max_source_tokens=9))
        with pytest.raises(attnd.ResourceExhausted, match="at most 64512 bytes") as caught:
            call(session.attend(1, tensors()[0], key_mask=np.ones((1, 600_000), bool)))
        assert caught.value.field == "step"
        assert np.array_equal(call(session.attend(0, *tensors())), tensors()[0])
        call(session.close())

    ask(fake, asynchronous, work)


def no_welcome(fake: FakeServer) -> None:
    fake.on_hello = lambda: None


def no_sessions(fake: FakeServer) -> None:
    fake.on_hello = lambda: local_pb2.LocalWelcome(version=1, max_message_bytes=1 << 16, max_calls=4)


def no_calls(fake: FakeServer) -> None:
    fake.on_hello = lambda: local_pb2.LocalWelcome(code=12, version=1, sessions=True)


def another_version(fake: FakeServer) -> None:
    fake.on_hello = lambda: local_pb2.LocalWelcome(version=2, max_message_bytes=1 << 16, max_calls=4, sessions=True)


def no_shared_memory(fake: FakeServer) -> None:
    fake.registers = 12


def silence(fake: FakeServer) -> None:
    fake.silent = True


def nobody(fake: FakeServer) -> None:
    os.unlink(fake.path)


@both
@pytest.mark.parametrize(
    "older", [no_welcome, no_sessions, no_calls, another_version, no_shared_memory, silence, nobody]
)
def test_other_servers_have_sessions_by_grpc(fake: FakeServer, older: Any, asynchronous: bool) -> None:
    older(fake)

    def work(call: Any, client: Any) -> None:
        for _ in range(2):
            session = call(client.session([SELF], "t5-tiny", max_tokens=9))
            assert session.transport == "grpc"
            call(session.attend(0, *tensors()))
            call(session.close())
        assert len(fake.connections) <= 1  # it is not asked again at once
        assert fake.sessions == []

    ask(fake, asynchronous, work)


OTHERS: Any = {
    "local_calls=False": ({"local_calls": False}, {}),
    "shared_memory=False": ({"shared_memory": False}, {}),
    "metadata": ({}, {"metadata": {"a": "b"}}),
    "many rows": ({}, {"rows": 1025}),
    "large masks": ({}, {"rows": 100, "sources": 100, "max_source_tokens": 2000}),
}


@both
@pytest.mark.parametrize("other", OTHERS)
def test_other_sessions_go_by_grpc(fake: FakeServer, other: str, asynchronous: bool) -> None:
    client_options, session_options = OTHERS[other]

    def work(call: Any, client: Any) -> None:
        layers = [SELF] + [attnd.CrossLayer(8, 64)] * ("sources" in session_options)
        session = call(client.session(layers, "t5-tiny", max_tokens=9, **session_options))
        assert session.transport == "grpc"
        assert session.lengths(0) if not asynchronous else call(session.lengths(0))
        call(session.close())
        assert fake.connections == []

    ask(fake, asynchronous, work, **client_options)


@both
def test_an_opening_that_is_refused_does_not_go_by_grpc(fake: FakeServer, asynchronous: bool) -> None:
    detail = types_pb2.ErrorDetail(field="open", expected="less", got="more")
    refusal = local_pb2.LocalSessionEnd(code=8, message="too much", detail=detail)
    refusal.retry_delay.nanos = 500_000_000
    fake.on_session = lambda server, request: [local_pb2.LocalReply(session_end=refusal)]

    def work(call: Any, client: Any) -> None:
        with pytest.raises(attnd.ResourceExhausted, match="too much") as caught:
            call(client.session([SELF], "t5-tiny", max_tokens=9))
        error = caught.value
        assert (error.field, error.expected, error.got, error.retry_delay) == ("open", "less", "more", 0.5)
        assert len(fake.sessions) == 1
        assert call(client.server_info()).sessions.open == 0

    ask(fake, asynchronous, work)


@both
def test_an_opening_is_repeated_when_the_server_says(fake: FakeServer, asynchronous: bool) -> None:
    times: List[float] = []

    def refuse_twice(server: FakeServer, request: local_pb2.LocalRequest) -> Said:
        if request.session.HasField("open"):
            times.append(time.monotonic())
            if len(times) < 3:
                refusal = end(14, message="stopping")
                refusal.session_end.retry_delay.nanos = 300_000_000
                return [refusal]
        return server.said(request)

    fake.on_session = refuse_twice

    def work(call: Any, client: Any) -> None:
        session = opened(call, client)
        assert len(times) == 3
        assert all(0.3 <= later - earlier < 3 for earlier, later in zip(times, times[1:]))
        assert np.array_equal(call(session.attend(0, *tensors())), tensors()[0])
        call(session.close())

    # The backoff of its own would be shorter.
    ask(fake, asynchronous, work, retry=attnd.Retry(initial_backoff=0.01, max_backoff=0.01))


@both
def test_close_waits_for_the_end_but_not_for_long(
    fake: FakeServer, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnd._duplex.CLOSE_SECONDS", 0.3)
    slow = threading.Event()

    def late(server: FakeServer, request: local_pb2.LocalRequest) -> Said:
        if request.HasField("session_close"):
            slow.wait(0.1)
            fake.calls.append(local_pb2.LocalCall())  # that it came to this
        return server.said(request)

    def work(call: Any, client: Any) -> None:
        session = opened(call, client)
        fake.on_session = late
        call(session.close())
        assert len(fake.calls) == 1
        fake.on_session = FakeServer.said
        session = opened(call, client)
        fake.silent = True
        begun = time.monotonic()
        call(session.close())
        assert 0.3 <= time.monotonic() - begun < 5
        wait_for(lambda: fake.ends == 2)

    ask(fake, asynchronous, work)


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Runs it; a function that waits for the result or the error."""
    outcome: List[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> Any:
        thread.join(60)
        return outcome[0]

    return wait


def test_closing_the_client_ends_its_sessions(fake: FakeServer) -> None:
    client = attnd.Client(fake.target)  # type: ignore[attr-defined]
    idle = opened(lambda result: result, client)
    busy = opened(lambda result: result, client)
    fake.on_session = to_steps(lambda server, request: [])
    result = in_thread(lambda: busy.attend(0, *tensors()))
    wait_for(lambda: len(fake.sessions) == 3)
    client.close()
    assert isinstance(result(), attnd.Cancelled)
    wait_for(lambda: fake.ends == 2)
    for session in (idle, busy):
        with pytest.raises(attnd.FailedPrecondition):
            session.lengths(0)
        session.close()


def test_closing_the_asyncio_client_ends_its_sessions(fake: FakeServer) -> None:
    async def main() -> None:
        async with attnd.AsyncClient(fake.target) as client:  # type: ignore[attr-defined]
            session = await client.session([SELF], "t5-tiny", max_tokens=9)
            fake.on_session = to_steps(lambda server, request: [])
            step = asyncio.ensure_future(session.attend(0, *tensors()))
            await asyncio.sleep(0.1)
        with pytest.raises(attnd.Cancelled):
            await step

    asyncio.run(main())
    wait_for(lambda: fake.ends == 1)


def test_an_interrupt_ends_the_session(fake: FakeServer) -> None:
    with attnd.Client(fake.target) as client:  # type: ignore[attr-defined]
        session = opened(lambda result: result, client)
        fake.on_session = to_steps(lambda server, request: [])
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            session.attend(0, *tensors())
        join_all([timer])
        wait_for(lambda: fake.ends == 1)
        with pytest.raises(attnd.Unavailable, match="interrupted"):
            session.attend(0, *tensors())


def test_a_cancelled_task_ends_the_session_and_leaves_the_others(fake: FakeServer) -> None:
    async def main() -> None:
        async with attnd.AsyncClient(fake.target) as client:  # type: ignore[attr-defined]
            session, other = [await client.session([SELF], "t5-tiny", max_tokens=9) for _ in range(2)]
            fake.on_session = to_steps(lambda server, request: [])
            first, waiting = (asyncio.ensure_future(session.attend(0, *tensors())) for _ in range(2))
            await asyncio.sleep(0.1)
            waiting.cancel()  # which has not begun
            with pytest.raises(asyncio.CancelledError):
                await waiting
            fake.on_session = FakeServer.said
            assert np.array_equal(await other.attend(0, *tensors()), tensors()[0])
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            with pytest.raises(attnd.Unavailable, match="interrupted"):
                await session.lengths(0)
            await other.close()

    asyncio.run(main())


@both
def test_nothing_is_left(fake: FakeServer, asynchronous: bool) -> None:
    def work(call: Any, client: Any) -> None:
        call(opened(call, client).close())
        gc.collect()
        before = len(descriptors())
        for way in ("close", "drop", "fail"):
            session = opened(call, client)
            call(session.attend(0, *tensors(500)))
            # The fake's own, as its mapping needs one; the client's does not.
            assert sum("memfd:attnd" in link for _, link in descriptors()) == len(fake.regions) == 1
            if way == "close":
                call(session.close())
            if way == "fail":
                fake.on_session = to_steps(lambda server, request: None)
                with contextlib.suppress(attnd.Unavailable):
                    call(session.attend(0, *tensors(500)))
                fake.on_session = FakeServer.said
            del session
            gc.collect()
            wait_for(lambda: len(fake.regions) == 0)
        # The fake's own ends stay until it is stopped.
        assert len(descriptors()) - before == 3
        assert "memfd:attnd" not in pathlib.Path("/proc/self/maps").read_text()

    ask(fake, asynchronous, work)
