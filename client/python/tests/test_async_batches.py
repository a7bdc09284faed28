"""What ends a task or a batch of tasks early ends each call, whatever it does at that moment, and leaves nothing."""

from __future__ import annotations

import asyncio
import math
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, Iterator, List

import grpc
import grpc.aio
import pytest

import attnd
from attnd._awaiting import AwaitingIo
from attnd._deadline import Deadline
from attnd._operation import Operation
from scripted import scripted_core
from test_batches import ENDS, Messages
from waits import SECONDS

LONG = Deadline(math.inf)


class FakeCall:
    """Ends only when it is cancelled, its own way or as grpc.aio's is by the cancellation of its awaiter."""

    def __init__(self, io: AwaitingIo) -> None:
        self.cancelled = asyncio.Event()
        self.answers: List[bytes] = []
        self._io = io

    def cancel(self) -> None:
        self.cancelled.set()

    def __await__(self) -> Iterator[Any]:
        return self._end().__await__()

    async def _end(self) -> bytes:
        try:
            await self.cancelled.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        raise asyncio.CancelledError

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for answer in self.answers:
            yield answer
        await self._end()


class FakeChannel:
    def __init__(self) -> None:
        self.waiting = 0
        self.closed = False
        self.busy = asyncio.Event()  # set when somebody waits

    def get_state(self) -> Any:
        return grpc.ChannelConnectivity.IDLE

    async def channel_ready(self) -> None:
        self.waiting += 1
        self.busy.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1

    async def close(self, grace: Any) -> None:
        self.closed = True


class Place:
    """An Io whose calls are FakeCalls."""

    def __init__(self) -> None:
        self.io = AwaitingIo(scripted_core(None, None).options)  # type: ignore[arg-type]
        self.io._open()
        for channel in self.io._channels.all:
            self.real = channel
        self.channel = FakeChannel()
        self.calls: List[FakeCall] = []
        self.io._channels = self  # type: ignore[assignment]
        self.answers: List[bytes] = []
        self.busy = asyncio.Event()

    first = property(lambda self: self.channel)
    all = property(lambda self: [self.channel, self.real])

    def unary(self, method: str) -> Any:
        return lambda payload, **_: self._call()

    def stream(self, method: str) -> Any:
        return lambda messages, **_: self._call()

    def _call(self) -> FakeCall:
        call = FakeCall(self.io)
        call.answers = self.answers
        self.calls.append(call)
        self.busy.set()
        return call


async def sent(place: Place, io: Any) -> Any:
    return await io.unary("m", b"", LONG, ())


async def stream(place: Place, io: Any) -> Any:
    return await io.exchange("m", Messages(), 3, LONG, ())


async def pause(place: Place, io: Any) -> Any:
    place.busy.set()
    await io.pause(10 * SECONDS)


async def waits_for_a_connection(place: Place, io: Any) -> Any:
    place.channel.busy = place.busy
    if not await io.connected(LONG):
        raise attnd.Unavailable("no connection")


STATES: Dict[str, Callable[[Place, Any], Awaitable[Any]]] = {
    state.__name__: state for state in (sent, stream, pause, waits_for_a_connection)
}


def run(test: Callable[[Place], Awaitable[None]]) -> None:
    async def main() -> None:
        place = Place()
        try:
            await asyncio.wait_for(test(place), SECONDS)
        finally:
            await place.io.close()
        assert all(call.cancelled.is_set() for call in place.calls)
        assert place.channel.waiting == 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


@pytest.mark.parametrize("end", [name for name in ENDS if name != "an interrupt"])
@pytest.mark.parametrize("state", STATES)
def test_an_early_end_of_a_batch(state: str, end: str) -> None:
    errors: List[BaseException] = []
    later: List[Any] = []

    async def test(place: Place) -> None:
        def under_way(io: Any) -> Operation[Any]:
            try:
                return (yield lambda: STATES[state](place, io))
            except BaseException as error:
                errors.append(error)
                raise

        def ends(io: Any) -> Operation[Any]:
            async def step() -> None:
                await place.busy.wait()
                raise ENDS[end]

            return (yield step)

        def never(io: Any) -> Operation[Any]:
            later.append(io)
            return (yield lambda: asyncio.sleep(0))

        with pytest.raises(type(ENDS[end])):
            await place.io.together(iter([under_way, ends, never]), 2, True)
        assert [type(error) for error in errors] == [asyncio.CancelledError]
        assert later == []
        assert all(call.cancelled.is_set() for call in place.calls)

    run(test)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_a_cancelled_task(state: str, batch: bool) -> None:
    async def test(place: Place) -> None:
        def start(io: Any) -> Operation[Any]:
            return (yield lambda: STATES[state](place, io))

        work = place.io.together([start] * 3, 2, True) if batch else STATES[state](place, place.io)
        task = asyncio.ensure_future(work)
        await place.busy.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("state", [name for name in STATES if name != "pause"])
def test_a_closed_client(state: str, batch: bool) -> None:
    """Calls under way end at once, with an error that says why."""

    async def test(place: Place) -> None:
        def start(io: Any) -> Operation[Any]:
            return (yield lambda: STATES[state](place, io))

        work = place.io.together([start], 1, True) if batch else STATES[state](place, place.io)
        task = asyncio.ensure_future(work)
        await place.busy.wait()
        await asyncio.sleep(0)
        await place.io.close()
        for call in place.calls:
            call.cancel()  # as closing a channel does
        expected = attnd.Unavailable if state == "waits_for_a_connection" else attnd.Cancelled
        with pytest.raises(expected):
            await task

    run(test)


def test_an_answer_that_is_not_accepted_ends_the_stream() -> None:
    class Refusing(Messages):
        def accept(self, message: bytes) -> None:
            raise attnd.Internal("not an answer")

    async def test(place: Place) -> None:
        place.answers = [b"x"]
        with pytest.raises(attnd.Internal):
            await place.io.exchange("m", Refusing(), 2, LONG, ())
        assert place.calls[0].cancelled.is_set()

    run(test)


def test_a_deadline_ends_the_wait_for_a_connection() -> None:
    async def test(place: Place) -> None:
        assert await place.io.connected(Deadline(0.05)) is False
        assert place.channel.waiting == 0

    run(test)
