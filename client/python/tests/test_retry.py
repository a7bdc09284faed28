"""Calls that a server refused or lost are sent again, and only those that may be."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any, Callable

import grpc
import pytest

import attnd
from attnd._deadline import Deadline
from attnd._retry import Budget, Policy, Tries
from fake_server import COMPUTE, FakeServer, answer_compute, answer_model, fake, refuse  # noqa: F401
from inputs import tensors
from waits import join_all

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
FAST = attnd.Retry(initial_backoff=0.001)


def server_info(target: str, asynchronous: bool, **options: Any) -> Any:
    """Calls server_info twice, the first time to have a connection."""
    if not asynchronous:
        with attnd.Client(target, **options) as client:
            client.server_info()
            return client.server_info()

    async def ask() -> Any:
        async with attnd.AsyncClient(target, **options) as client:
            await client.server_info()
            return await client.server_info()

    return asyncio.run(ask())


def answer_then(handler: Callable[..., bytes]) -> Callable[..., bytes]:
    """Answers the first call, and leaves the others to `handler`."""
    from fake_server import answer_info

    first = [True]

    def handle(request: bytes, context: Any) -> bytes:
        if first.pop() if first else False:
            return answer_info(request, context)
        return handler(request, context)

    return handle


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["Client", "AsyncClient"])


@both
@pytest.mark.parametrize(
    ("code", "message"),
    [(UNAVAILABLE, "stopping"), (grpc.StatusCode.CANCELLED, "lost"), (grpc.StatusCode.UNKNOWN, "Stream removed")],
)
def test_repeated(fake: FakeServer, asynchronous: bool, code: grpc.StatusCode, message: str) -> None:  # noqa: F811
    fake.handlers["GetServerInfo"] = answer_then(refuse(code, message, times=3))
    assert server_info(fake.target, asynchronous, retry=FAST).version == "fake"
    assert len(fake.calls) == 5


@both
@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNKNOWN]
)
def test_not_repeated(fake: FakeServer, asynchronous: bool, code: grpc.StatusCode) -> None:  # noqa: F811
    fake.handlers["GetServerInfo"] = answer_then(refuse(code, "no"))
    with pytest.raises(attnd.Error):
        server_info(fake.target, asynchronous, retry=FAST)
    assert len(fake.calls) == 2


def test_attend_is_repeated(fake: FakeServer) -> None:  # noqa: F811
    fake.handlers[COMPUTE] = refuse(UNAVAILABLE, "stopping", times=2, then=answer_compute)
    with attnd.Client(fake.target, retry=FAST) as client:
        assert client.attend(*tensors(), "m").shape == (1, 8, 16, 64)
    assert len(fake.calls) == 3


def test_pieces_are_repeated_each_by_itself(fake: FakeServer) -> None:  # noqa: F811
    fake.handlers[COMPUTE] = refuse(UNAVAILABLE, "stopping", times=3, then=answer_compute)
    with attnd.Client(fake.target, retry=FAST) as client:
        assert client.attend(*tensors(queries=1024), "m").shape == (1, 8, 1024, 64)
    assert len(fake.calls) == 8 + 3


@both
def test_turned_off(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    fake.handlers["GetServerInfo"] = answer_then(refuse(UNAVAILABLE, "stopping"))
    with pytest.raises(attnd.Unavailable, match=r"^stopping$"):
        server_info(fake.target, asynchronous, retry=None)
    assert len(fake.calls) == 2


METHODS: dict[str, Callable[[attnd.Client], Any]] = {
    "LoadModel": lambda client: client.load_model("x"),
    "ReloadModel": lambda client: client.reload_model("x"),
    "UnloadModel": lambda client: client.unload_model("x"),
    "UploadTable": lambda client: client.upload_table("x", attnd.Table(attnd.AlibiSlopes([1.0]))),
}


@pytest.mark.parametrize("method", METHODS)
def test_methods_with_effects_are_sent_once(fake: FakeServer, method: str) -> None:  # noqa: F811
    fake.handlers[method] = refuse(UNAVAILABLE, "stopping", then=answer_model)
    with attnd.Client(fake.target, retry=FAST) as client:
        client.server_info()
        with pytest.raises(attnd.Unavailable, match=r"^stopping$"):
            METHODS[method](client)
    assert fake.calls == ["GetServerInfo", method]


@both
def test_pushback_asks_for_a_later_repeat(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    metadata = (("grpc-retry-pushback-ms", "400"),)
    fake.handlers["GetServerInfo"] = answer_then(refuse(UNAVAILABLE, "later", metadata))
    start = time.monotonic()
    server_info(fake.target, asynchronous, retry=FAST)
    assert time.monotonic() - start >= 0.4


@both
@pytest.mark.parametrize("pushback", ["-1", "soon"])
def test_pushback_forbids_a_repeat(fake: FakeServer, asynchronous: bool, pushback: str) -> None:  # noqa: F811
    metadata = (("grpc-retry-pushback-ms", pushback),)
    fake.handlers["GetServerInfo"] = answer_then(refuse(UNAVAILABLE, "no more", metadata))
    with pytest.raises(attnd.Unavailable, match="wants no repeat"):
        server_info(fake.target, asynchronous, retry=FAST)
    assert len(fake.calls) == 2


@both
def test_the_budget_ends(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    fake.handlers["GetServerInfo"] = answer_then(refuse(UNAVAILABLE, "stopping", times=1000))
    retry = attnd.Retry(initial_backoff=0.001, max_backoff=0.001, budget=0.0, reserve_per_second=0.5)
    with pytest.raises(attnd.Unavailable, match=r"attempt 6 in .*budget of repeats is used up"):
        server_info(fake.target, asynchronous, retry=retry)
    assert len(fake.calls) == 7


@both
def test_the_time_ends(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    fake.handlers["GetServerInfo"] = answer_then(refuse(UNAVAILABLE, "stopping", times=1000))
    start = time.monotonic()
    with pytest.raises(attnd.Unavailable, match="there is no time for another"):
        server_info(fake.target, asynchronous, retry=attnd.Retry(max_time=0.5))
    assert time.monotonic() - start < 5


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@both
def test_nobody_at_the_address_is_an_error_at_once(asynchronous: bool) -> None:
    start = time.monotonic()
    with pytest.raises(attnd.Unavailable):
        server_info(f"127.0.0.1:{unused_port()}", asynchronous)
    assert time.monotonic() - start < 5


@both
def test_a_first_server_is_waited_for_where_asked(asynchronous: bool) -> None:
    target = f"127.0.0.1:{unused_port()}"
    late: list[FakeServer] = []
    starter = threading.Timer(0.3, lambda: late.append(FakeServer(target)))
    starter.start()
    try:
        info = server_info(target, asynchronous, retry=attnd.Retry(wait_for_first_server=True))
        assert info.version == "fake"
    finally:
        join_all([starter])
        late[0].stop()
    with pytest.raises(attnd.Unavailable, match="no time for another"):
        server_info(target, asynchronous, retry=attnd.Retry(max_time=0.2, wait_for_first_server=True))


@both
def test_a_restart_shows_as_a_delay(asynchronous: bool) -> None:
    first = FakeServer()
    second: list[FakeServer] = []

    def restart() -> None:
        first.stop()
        time.sleep(0.5)
        second.append(FakeServer(first.target))

    def ask_once(client: Any) -> Any:
        return client.server_info()

    thread = threading.Thread(target=restart)
    if asynchronous:

        async def ask() -> Any:
            async with attnd.AsyncClient(first.target) as client:
                await client.server_info()
                thread.start()
                await asyncio.sleep(0.2)
                return await client.server_info()

        info = asyncio.run(ask())
    else:
        with attnd.Client(first.target) as client:
            client.server_info()
            thread.start()
            time.sleep(0.2)
            info = client.server_info()
    join_all([thread])
    second[0].stop()
    assert info.version == "fake"


@both
def test_a_server_that_does_not_come_back(asynchronous: bool) -> None:
    server = FakeServer()

    async def ask() -> None:
        async with attnd.AsyncClient(server.target, retry=attnd.Retry(max_time=0.6)) as client:
            await client.server_info()
            await asyncio.get_running_loop().run_in_executor(None, server.stop)
            await client.server_info()

    start = time.monotonic()
    with pytest.raises(attnd.Unavailable, match="no time for another"):
        if asynchronous:
            asyncio.run(ask())
        else:
            with attnd.Client(server.target, retry=attnd.Retry(max_time=0.6)) as client:
                client.server_info()
                server.stop()
                client.server_info()
    assert 0.5 < time.monotonic() - start < 10


@both
def test_nothing_is_spent_while_nobody_can_be_reached(asynchronous: bool) -> None:
    """A budget of two repeats is enough for a server that is away for longer than many backoffs."""
    first = FakeServer()
    second: list[FakeServer] = []
    retry = attnd.Retry(initial_backoff=0.01, max_backoff=0.02, budget=0.0, reserve_per_second=0.2)

    def restart() -> None:
        first.stop()
        time.sleep(1.0)
        second.append(FakeServer(first.target))

    async def ask() -> None:
        async with attnd.AsyncClient(first.target, retry=retry) as client:
            await client.server_info()
            restarting = asyncio.get_running_loop().run_in_executor(None, restart)
            await asyncio.sleep(0.3)
            await client.server_info()
            await restarting

    if asynchronous:
        asyncio.run(ask())
    else:
        with attnd.Client(first.target, retry=retry) as client:
            client.server_info()
            thread = threading.Thread(target=restart)
            thread.start()
            time.sleep(0.3)
            client.server_info()
            join_all([thread])
    second[0].stop()


def wait_until_lost(state: Callable[[], Any]) -> None:
    """Until the client knows that its connection has ended: what it sends before that is lost with it."""
    deadline = time.monotonic() + 30
    while state() is grpc.ChannelConnectivity.READY:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@both
@pytest.mark.parametrize("lost_late", [False, True])
def test_methods_with_effects_wait_for_a_server(asynchronous: bool, lost_late: bool) -> None:
    """What waits for a connection has not been sent. With `lost_late` the connection ends between the moment that the
    client finds it and the call."""
    first = FakeServer()
    second: list[FakeServer] = []

    def stop_and_restart(client: Any, state: Callable[[], Any]) -> None:
        first.stop()
        wait_until_lost(state)
        if lost_late:
            client._core.io.connected = found

        def start() -> None:
            second.append(FakeServer(first.target))
            second[0].handlers["LoadModel"] = answer_model

        threading.Timer(0.7, start).start()

    def found(deadline: Deadline) -> Any:
        return asyncio.sleep(0, True) if asynchronous else True

    async def ask() -> Any:
        async with attnd.AsyncClient(first.target) as client:
            await client.server_info()
            state = client._core.io._channels.first.get_state  # type: ignore[attr-defined]
            await asyncio.get_running_loop().run_in_executor(None, stop_and_restart, client, state)
            return await client.load_model("x")

    if asynchronous:
        model = asyncio.run(ask())
    else:
        with attnd.Client(first.target) as client:
            client.server_info()
            stop_and_restart(client, client._core.io._watch.first_state)  # type: ignore[attr-defined]
            model = client.load_model("x")
    assert model.name == "fake"
    assert second[0].calls == ["LoadModel"]
    second[0].stop()


def test_the_timeout_ends_the_wait() -> None:
    server = FakeServer()
    with attnd.Client(server.target) as client:
        client.server_info()
        server.stop()
        start = time.monotonic()
        with pytest.raises((attnd.Unavailable, attnd.DeadlineExceeded)):
            client.server_info(timeout=0.5)
        assert time.monotonic() - start < 3


def test_budget() -> None:
    now = [100.0]
    budget = Budget(0.2, 1.0, lambda: now[0])
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]  # the reserve is full at first
    now[0] += 1
    assert [budget.spend(), budget.spend()] == [True, False]
    for _ in range(5):
        budget.earn()
    assert [budget.spend(), budget.spend()] == [True, False]
    now[0] += 1000
    assert sum(budget.spend() for _ in range(20)) == 10
    for _ in range(100_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(2000)) == 1000


def test_backoff() -> None:
    policy = Policy(attnd.Retry(initial_backoff=0.1, max_backoff=0.3))
    error = attnd.Unavailable("no")
    longest = Tries(policy, Deadline(60), jitter=lambda: 1.0)
    shortest = Tries(policy, Deadline(60), jitter=lambda: 0.0)
    assert [round(longest.wait(error), 6) for _ in range(4)] == [0.1, 0.2, 0.3, 0.3]
    assert [round(shortest.wait(error), 6) for _ in range(3)] == [0.05, 0.1, 0.15]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_time", -1),
        ("initial_backoff", 0),
        ("max_backoff", float("nan")),
        ("budget", -0.1),
        ("reserve_per_second", "x"),
    ],
)
def test_settings_that_make_no_policy(name: str, value: Any) -> None:
    with pytest.raises(attnd.InvalidArgument) as caught:
        attnd.Retry(**{name: value})
    assert caught.value.field == f"retry.{name}"
