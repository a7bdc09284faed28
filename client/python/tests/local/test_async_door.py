"""Calls over the local socket in an event loop, against a server that does as the test asks."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from typing import Any, Awaitable, Callable, List, Optional

import numpy as np
import pytest

from attnd._local_async import AsyncLocalDoor
from attnd.errors import Cancelled, DeadlineExceeded, FailedPrecondition, Internal, Unavailable
from attnd.v1 import local_pb2
from waits import join_all

from .fake_server import FakeServer, Losses, wait_for
from .test_door import HEADER, SENT, SOON, Q


@pytest.fixture
def run(fake: FakeServer, losses: Losses) -> Callable[[Callable[[AsyncLocalDoor], Awaitable[None]]], None]:
    """Runs a test's coroutine function with a door."""

    def run(test: Callable[[AsyncLocalDoor], Awaitable[None]]) -> None:
        async def main() -> None:
            door = AsyncLocalDoor(fake.path, "test/1", losses)
            try:
                await asyncio.wait_for(test(door), 20)
            finally:
                door.close()

        asyncio.run(main())

    return run


async def call(door: AsyncLocalDoor, timeout: float = 10.0, sent: Any = SENT) -> Optional[local_pb2.LocalAnswer]:
    size = sum(array.nbytes for _, array in sent)
    return await door.call(HEADER, b"", sent, size, 32, timeout, time.monotonic() + timeout)


def test_a_thousand_tasks_share_one_connection(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        answers = await asyncio.gather(*(call(door) for _ in range(1000)))
        assert all(answer is not None and answer.result.output == (Q + 2).tobytes() for answer in answers)
        assert len(fake.connections) == 1
        assert len({request.id for request in fake.calls}) == 1000

    run(test)


def test_no_more_calls_than_the_server_takes(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = lambda server, request: None
        tasks = [asyncio.ensure_future(call(door)) for _ in range(10)]
        await asyncio.sleep(0.1)
        assert len(fake.calls) == 4
        # Answers in another order than the calls'.
        for request in reversed(list(fake.calls)):
            fake.connections[0].send(local_pb2.LocalReply(answer=fake.result(request)).SerializeToString())
        fake.on_call = lambda server, request: server.result(request)
        answers = await asyncio.gather(*tasks)
        assert [answer.id for answer in answers if answer is not None] == list(range(1, 11))

    run(test)


def test_a_cancelled_task_cancels_its_call(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = lambda server, request: None
        task = asyncio.ensure_future(call(door))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        wait_for(lambda: fake.cancels == [1])
        # The answer that comes nevertheless is nobody's.
        cancelled = local_pb2.LocalAnswer(id=1, code=1, message="cancelled")
        fake.connections[0].send(local_pb2.LocalReply(answer=cancelled).SerializeToString())
        fake.on_call = lambda server, request: server.result(request)
        answer = await call(door)
        assert answer is not None
        assert answer.id == 2

    run(test)


def test_cancelled_waiting_tasks_leave_their_turn_to_others(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = lambda server, request: None
        tasks = [asyncio.ensure_future(call(door)) for _ in range(8)]
        await asyncio.sleep(0.05)
        for task in tasks[4:6]:
            task.cancel()
        fake.on_call = lambda server, request: server.result(request)
        for request in list(fake.calls):
            fake.connections[0].send(local_pb2.LocalReply(answer=fake.result(request)).SerializeToString())
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [False] * 4 + [True] * 2 + [
            False
        ] * 2

    run(test)


def test_a_task_that_is_cancelled_as_its_turn_comes_gives_it_to_the_next(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = lambda server, request: None
        tasks = [asyncio.ensure_future(call(door)) for _ in range(6)]
        await asyncio.sleep(0.05)
        fake.on_call = lambda server, request: server.result(request)
        link = door._link
        assert link is not None
        link._take(local_pb2.LocalReply(answer=fake.result(fake.calls[0])))
        tasks[4].cancel()  # before it runs
        # Only one of the four calls under way is answered: without its turn the last would wait for ever.
        assert await asyncio.wait_for(tasks[5], 5) is not None
        assert tasks[4].cancelled()
        door.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(test)


def test_deadlines_of_calls_under_way_and_of_waiting_ones(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = lambda server, request: None
        start = time.monotonic()
        results = await asyncio.gather(*(call(door, 0.1) for _ in range(6)), return_exceptions=True)
        assert time.monotonic() - start < 5
        messages = sorted(str(result) for result in results)
        assert [type(result) for result in results] == [DeadlineExceeded] * 6
        assert ["answered" in message for message in messages].count(True) >= 4
        wait_for(lambda: sorted(fake.cancels)[:4] == [1, 2, 3, 4])

    run(test)


def test_a_server_that_ends_fails_all_calls(run: Any, fake: FakeServer, losses: Losses) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = lambda server, request: None
        tasks = [asyncio.ensure_future(call(door)) for _ in range(6)]
        await asyncio.sleep(0.05)
        fake.on_call = lambda server, request: server.result(request)
        fake.connections[0].shutdown(socket.SHUT_RDWR)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results[:4]] == [Unavailable] * 4
        # Those that were not sent go over a new connection.
        assert all(isinstance(result, local_pb2.LocalAnswer) for result in results[4:])
        assert losses.count == 1
        assert await call(door) is not None

    run(test)


@pytest.mark.parametrize("welcome", [None, local_pb2.LocalWelcome(code=12), local_pb2.LocalWelcome(version=2)])
def test_a_server_without_local_calls_is_left_alone(
    run: Any, fake: FakeServer, welcome: Optional[local_pb2.LocalWelcome]
) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_hello = lambda: welcome
        assert await asyncio.gather(*(call(door) for _ in range(5))) == [None] * 5
        assert not await door.offered(math.inf)
        assert not door.worth_trying()
        assert len(fake.connections) == 1

    run(test)


def test_a_silent_server(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.silent = True
        start = time.monotonic()
        assert not await door.offered(start + 0.05)
        assert time.monotonic() - start < 0.5
        assert not await door.offered(math.inf)
        assert not door.worth_trying()

    run(test)


def test_a_server_without_a_sign_of_life_is_given_up(fake: FakeServer, losses: Losses) -> None:
    async def main() -> None:
        door = AsyncLocalDoor(fake.path, "test/1", losses, SOON)
        assert await call(door) is not None
        fake.on_call = lambda server, request: None
        first = asyncio.ensure_future(call(door, math.inf))
        # Alive, it may take its time: many times as long as it may be silent.
        await until(lambda: fake.signs >= 6)
        second = asyncio.ensure_future(call(door, 1000.0))
        await until(lambda: len(fake.calls) == 3)
        assert not first.done()
        fake.silent = True
        for task in (first, second):
            with pytest.raises(Unavailable, match="no sign of life"):
                await task
        assert losses.count == 1
        assert not door.worth_trying()
        door.close()

    async def until(condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_the_first_task_is_cancelled_while_it_connects(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        go = threading.Event()

        def welcome() -> local_pb2.LocalWelcome:
            go.wait(10)
            return local_pb2.LocalWelcome(version=1, max_message_bytes=1 << 16, max_calls=4)

        fake.on_hello = welcome
        first, second = asyncio.ensure_future(call(door)), asyncio.ensure_future(call(door))
        await asyncio.sleep(0.02)
        first.cancel()
        go.set()
        assert await second is not None
        with pytest.raises(asyncio.CancelledError):
            await first

    run(test)


def test_a_full_socket_is_waited_for(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_hello = lambda: local_pb2.LocalWelcome(version=1, max_message_bytes=1 << 16, max_calls=1000)
        held = threading.Event()

        def hold(server: FakeServer, request: local_pb2.LocalCall) -> local_pb2.LocalAnswer:
            held.wait(10)
            return server.result(request)

        fake.on_call = hold
        rows = np.zeros((1, 1, 2, 1024), np.float32)
        sent = [(100, rows), (101, rows), (102, rows)]
        tasks = [asyncio.ensure_future(call(door, sent=sent)) for _ in range(200)]
        await asyncio.sleep(0.1)
        held.set()
        answers = await asyncio.gather(*tasks)
        assert all(answer is not None and answer.code == 0 for answer in answers)

    run(test)


def test_an_answer_that_is_none_ends_the_connection(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = lambda server, request: local_pb2.LocalAnswer(id=77)
        with pytest.raises(Internal):
            await call(door)
        fake.on_call = lambda server, request: server.result(request)
        assert await call(door) is not None
        assert len(fake.connections) == 2

    run(test)


def test_close_ends_calls(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = lambda server, request: None
        tasks: List[Any] = [asyncio.ensure_future(call(door)) for _ in range(6)]
        await asyncio.sleep(0.05)
        door.close()
        door.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [Cancelled] * 6
        assert await call(door) is None

    run(test)


def test_without_a_deadline(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        answer = await door.call(HEADER, b"", SENT, 96, 32, math.inf, math.inf)
        assert answer is not None
        assert not fake.calls[0].HasField("timeout")

    run(test)


def test_another_event_loop_is_refused(fake: FakeServer, losses: Losses) -> None:
    door = AsyncLocalDoor(fake.path, "test/1", losses)
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(call(door)) is not None

    async def other() -> None:
        with pytest.raises(FailedPrecondition, match="event loop"):
            await call(door)

    asyncio.run(other())
    assert loop.run_until_complete(call(door)) is not None
    door.close()
    loop.close()


def test_closed_on_another_thread(run: Any, fake: FakeServer) -> None:
    async def test(door: AsyncLocalDoor) -> None:
        fake.on_call = lambda server, request: None
        task = asyncio.ensure_future(call(door))
        await asyncio.sleep(0.05)
        thread = threading.Thread(target=door.close)
        thread.start()
        with pytest.raises(Cancelled):
            await task
        join_all([thread])

    run(test)
