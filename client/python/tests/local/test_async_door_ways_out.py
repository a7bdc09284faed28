"""However a task's call over the local socket ends, others have afterwards all the turns that there were before."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import Any, Awaitable, Callable, Dict, List

import pytest

from attnd import _local_async, _regions
from attnd._local import Keepalive, Welcome
from attnd._local_async import AsyncLocalDoor, _Link
from attnd.errors import Cancelled, DeadlineExceeded, Internal, Unavailable
from attnd.v1 import local_pb2
from waits import SECONDS, until

from .fake_server import FakeServer, Losses, Times
from .test_async_door import call
from .test_door import HEADER, SENT, Q
from .test_door_ways_out import LARGE

MOST = 4  # what the fake server's welcome says


def run(fake: FakeServer, test: Callable[[AsyncLocalDoor], Awaitable[None]]) -> None:
    async def main() -> None:
        door = AsyncLocalDoor(fake.path, "test/1", Losses(), Keepalive(5.0, 5.0))
        try:
            await asyncio.wait_for(test(door), SECONDS)
        finally:
            door.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def result(server: FakeServer, request: local_pb2.LocalCall) -> Any:
    return server.result(request)


def nothing(server: FakeServer, request: local_pb2.LocalCall) -> Any:
    return None


async def answered(door: AsyncLocalDoor, fake: FakeServer) -> None:
    assert await call(door) is not None


async def refused(door: AsyncLocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: local_pb2.LocalAnswer(id=request.id, code=5)
    answer = await call(door)
    assert answer is not None and answer.code == 5


async def not_answered_in_time(door: AsyncLocalDoor, fake: FakeServer) -> None:
    fake.on_call = nothing
    with pytest.raises(DeadlineExceeded, match="answered"):
        await call(door, 0.05)
    answer_all(fake)


async def cancelled(door: AsyncLocalDoor, fake: FakeServer) -> None:
    fake.on_call = nothing
    before = len(fake.calls)
    task = asyncio.ensure_future(call(door))
    await until(lambda: len(fake.calls) > before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: fake.cancels[-1:] == [fake.calls[-1].id])
    answer_all(fake)


async def cancelled_while_it_connects(door: AsyncLocalDoor, fake: FakeServer) -> None:
    lose(door)
    task = asyncio.ensure_future(call(door))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def too_late_before_it_is_sent(door: AsyncLocalDoor, fake: FakeServer) -> None:
    await call(door)
    with pytest.raises(DeadlineExceeded, match="sent"):
        await door.call(HEADER, b"", SENT, 96, 32, 1.0, time.monotonic() - 1)


async def while_it_waits_for_its_turn(door: AsyncLocalDoor, fake: FakeServer) -> None:
    """Several, by cancellation and by their deadlines."""
    fake.on_call = nothing
    before = len(fake.calls)
    first = [asyncio.ensure_future(call(door)) for _ in range(MOST)]
    await until(lambda: len(fake.calls) == before + MOST)
    late = [asyncio.ensure_future(call(door, 0.05)) for _ in range(2)]
    gone = [asyncio.ensure_future(call(door)) for _ in range(2)]
    link = door._link
    assert link is not None
    await until(lambda: len(link._waiting) == 4)  # type: ignore[union-attr]
    for task in gone:
        task.cancel()
    outcomes = await asyncio.gather(*late, *gone, return_exceptions=True)
    assert [type(one) for one in outcomes] == [DeadlineExceeded] * 2 + [asyncio.CancelledError] * 2
    for request in fake.calls[before:]:
        fake.connections[-1].send(local_pb2.LocalReply(answer=fake.result(request)).SerializeToString())
    await asyncio.gather(*first)


async def connection_lost(door: AsyncLocalDoor, fake: FakeServer) -> None:
    def end(server: FakeServer, request: local_pb2.LocalCall) -> None:
        server.connections[-1].shutdown(socket.SHUT_RDWR)

    fake.on_call = end
    with pytest.raises(Unavailable):
        await call(door)


async def too_large_a_call(door: AsyncLocalDoor, fake: FakeServer) -> None:
    assert await call(door, sent=LARGE) is None


async def the_socket_takes_nothing_as_large(door: AsyncLocalDoor, fake: FakeServer) -> None:
    await call(door)
    assert door._link is not None
    door._link.welcome = Welcome(1 << 30, MOST)
    assert await call(door, sent=[(100 + i, LARGE[0][1].repeat(16, axis=2)) for i in range(3)]) is None


async def garbage(door: AsyncLocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: server.connections[-1].send(b"\xff\xff") and None
    with pytest.raises(Internal):
        await call(door)


async def an_answer_to_another_call(door: AsyncLocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: local_pb2.LocalAnswer(id=request.id + 1)
    with pytest.raises(Internal):
        await call(door)


async def no_welcome(door: AsyncLocalDoor, fake: FakeServer) -> None:
    lose(door)
    welcome, fake.on_hello = fake.on_hello, lambda: None
    assert await call(door) is None
    fake.on_hello = welcome
    door._rest_until = 0.0


WAYS: Dict[str, Callable[[AsyncLocalDoor, FakeServer], Awaitable[None]]] = {
    way.__name__: way
    for way in (
        answered,
        refused,
        not_answered_in_time,
        cancelled,
        cancelled_while_it_connects,
        too_late_before_it_is_sent,
        while_it_waits_for_its_turn,
        connection_lost,
        too_large_a_call,
        the_socket_takes_nothing_as_large,
        garbage,
        an_answer_to_another_call,
        no_welcome,
    )
}


def lose(door: AsyncLocalDoor) -> None:
    if door._link is not None:
        door._link.end(Unavailable("lost"))


def answer_all(fake: FakeServer) -> None:
    """The late answer to the last call."""
    answer = local_pb2.LocalAnswer(id=fake.calls[-1].id, code=1, message="cancelled")
    fake.connections[-1].send(local_pb2.LocalReply(answer=answer).SerializeToString())


@pytest.mark.parametrize("times", [1, MOST + 1])
@pytest.mark.parametrize("way", WAYS)
def test_ways_out(fake: FakeServer, way: str, times: int) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        for _ in range(times):
            await WAYS[way](door, fake)
        fake.on_call = result
        assert await call(door) is not None
        link = door._link
        assert link is not None
        await until(lambda: not link._calls)
        assert not link._waiting
        assert not link._unsent
        # MOST calls at once, and one more after the first of them.
        fake.on_call = nothing
        before = len(fake.calls)
        tasks = [asyncio.ensure_future(call(door)) for _ in range(MOST + 2)]
        await until(lambda: len(fake.calls) == before + MOST)
        await until(lambda: len(link._waiting) == 2)
        fake.on_call = result
        for request in fake.calls[before : before + MOST]:
            fake.connections[-1].send(local_pb2.LocalReply(answer=fake.result(request)).SerializeToString())
        answers = await asyncio.gather(*tasks)
        assert all(answer is not None and answer.result.output == (Q + 2).tobytes() for answer in answers)
        assert not link._calls and not link._waiting

    run(fake, test)


@pytest.mark.parametrize("way", ["client", "connection"])
def test_an_end_reaches_every_task(fake: FakeServer, way: str) -> None:
    """Those under way, those that wait for their turn, and those that connect."""

    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = nothing
        tasks = [asyncio.ensure_future(call(door)) for _ in range(MOST + 3)]
        await until(lambda: len(fake.calls) == MOST)
        if way == "client":
            door.close()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(one) for one in outcomes] == [Cancelled] * (MOST + 3)
            assert await call(door) is None
            return
        fake.on_call = result
        lose(door)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in outcomes[:MOST]] == [Unavailable] * MOST
        assert all(isinstance(one, local_pb2.LocalAnswer) for one in outcomes[MOST:])

    run(fake, test)


def test_closing_while_tasks_connect(fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.silent = True
        tasks = [asyncio.ensure_future(call(door)) for _ in range(3)]
        await until(lambda: len(fake.connections) == 1)
        door.close()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in outcomes] == [Cancelled] * 3

    run(fake, test)


@pytest.mark.parametrize("refuses", [False, True])
def test_how_long_a_server_without_calls_is_left_alone(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    times = Times()
    asked: List[int] = []

    async def test(door: AsyncLocalDoor) -> None:
        monkeypatch.setattr(_local_async, "time", times)
        fake.on_hello = lambda: asked.append(1)
        if refuses:
            fake.on_hello = lambda: asked.append(1) or local_pb2.LocalWelcome(code=12, version=1)
        for left, tried in (
            (0.0, True),
            (_regions.REST_AFTER_SILENCE - 0.01, False),
            (_regions.REST_AFTER_SILENCE, True),
        ):
            times.now = 1000.0 + left
            before = len(asked)
            assert door.worth_trying() == tried
            assert not await door.offered(math.inf)
            assert (len(asked) > before) == tried

    run(fake, test)


def with_link(test: Callable[[_Link, socket.socket], Awaitable[None]]) -> None:
    """A link whose other end is the test's."""

    async def main() -> None:
        mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        other.settimeout(SECONDS)
        link = _Link(mine, lambda _: None, Keepalive())
        link.welcome = Welcome(1 << 16, MOST)
        with other:
            await asyncio.wait_for(test(link, other), SECONDS)
            link.end(Unavailable("over"))

    asyncio.run(main())


def test_what_waits_for_room_in_the_socket_is_not_overtaken() -> None:
    """A cancellation that came before its call would be lost."""

    async def test(link: _Link, other: socket.socket) -> None:
        link._unsent.append(b"first")
        link._send([b"sec", b"tion"])
        assert list(link._unsent) == [b"first", b"section"]
        link._write()
        assert [other.recv(100), other.recv(100)] == [b"first", b"section"]
        link._send([b"third"])
        assert other.recv(100) == b"third"

    with_link(test)


def test_a_full_socket_keeps_the_order() -> None:
    async def test(link: _Link, other: socket.socket) -> None:
        sent = [str(i).encode().ljust(1000, b".") for i in range(2000)]
        for data in sent:
            link._send([data])
        assert link._unsent

        def receive() -> List[bytes]:
            return [other.recv(2000) for _ in sent]

        received = await asyncio.get_running_loop().run_in_executor(None, receive)
        assert received == sent
        await until(lambda: not link._unsent)
        assert not link._loop.remove_writer(link._socket.fileno())  # it is watched no longer

    with_link(test)


@pytest.mark.parametrize("after", [True, False])
def test_a_turn_goes_on_when_its_task_was_cancelled(after: bool) -> None:
    """Whether the cancellation comes before the turn or together with it."""

    async def test(link: _Link, other: socket.socket) -> None:
        first, second = (asyncio.ensure_future(link._turn(SECONDS, math.inf)) for _ in range(2))
        await asyncio.sleep(0)
        if after:
            link._wake(1)
            first.cancel()
        else:
            first.cancel()
            link._wake(1)
        await asyncio.wait_for(second, 5)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not link._waiting

    with_link(test)


@pytest.mark.parametrize("calls", [MOST - 1, MOST])
def test_the_most_calls_at_once(calls: int) -> None:
    async def test(link: _Link, other: socket.socket) -> None:
        tasks = [asyncio.ensure_future(link.call(HEADER, b"", SENT, math.inf, math.inf)) for _ in range(calls + 1)]
        await asyncio.sleep(0.01)
        assert len(link._calls) == min(calls + 1, MOST)
        assert len(link._waiting) == max(0, calls + 1 - MOST)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Their ids are taken until the answers come.
        assert list(link._calls.values()) == [None] * min(calls + 1, MOST)
        for call_id in list(link._calls):
            link._take(local_pb2.LocalReply(answer=local_pb2.LocalAnswer(id=call_id, code=1)))
        assert not link._calls

    async def greeted(link: _Link, other: socket.socket) -> None:
        link._greeting.set_result(None)
        await test(link, other)

    with_link(greeted)
