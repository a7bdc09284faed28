"""What ends a batch of calls early ends each of them, whatever it does at that moment, and leaves nothing."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Iterator, List, Optional

import grpc
import pytest

import attnd
from attnd._blocking import BlockingIo, Sender, _Group
from attnd._connection_watch import ConnectionWatch
from attnd._deadline import Deadline
from attnd._operation import MessageStream, Operation
from scripted import scripted_core
from test_connection_watch import FakeChannel
from waits import SECONDS, in_thread, wait_for

LONG = Deadline(float("inf"))


class RpcError(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        return "cancelled"

    def trailing_metadata(self) -> Any:
        return ()


class FakeCall:
    """Ends only when it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()

    def _wait(self) -> None:
        assert self.cancelled.wait(SECONDS), "the call was not cancelled"

    def result(self) -> bytes:
        self._wait()
        raise grpc.FutureCancelledError

    def __iter__(self) -> Iterator[bytes]:
        self._wait()
        raise RpcError
        yield b""


class Messages(MessageStream):
    def __init__(self) -> None:
        self.taken = 0
        self.accepted: List[bytes] = []

    def next_message(self) -> Optional[bytes]:
        self.taken += 1
        return b"x"

    def accept(self, message: bytes) -> None:
        self.accepted.append(message)


class FakeChannels:
    """Instead of the client's: every call is a FakeCall. `began` is called while a call is being sent."""

    def __init__(self) -> None:
        self.calls: List[FakeCall] = []
        self.senders: List[in_thread] = []
        self.began: Callable[[], None] = lambda: None

    def unary(self, method: str) -> Any:
        channels = self

        class Method:
            @staticmethod
            def future(payload: bytes, **_: Any) -> FakeCall:
                return channels._call()

        return Method

    def stream(self, method: str) -> Any:
        def begin(messages: Iterator[bytes], **_: Any) -> FakeCall:
            self.senders.append(in_thread(lambda: list(messages)))  # as grpcio does
            return self._call()

        return begin

    def _call(self) -> FakeCall:
        call = FakeCall()
        self.calls.append(call)
        self.began()
        return call


class Connection:
    """Of the local socket."""

    def __init__(self) -> None:
        self.interrupted = threading.Event()

    def interrupt(self) -> None:
        self.interrupted.set()


class Place:
    """A group of operations, and what they use. `busy` is set when the others are where the test wants them."""

    def __init__(self) -> None:
        self.io = BlockingIo(scripted_core(None, None).options)  # type: ignore[arg-type]
        self.channels = FakeChannels()
        self.channel = FakeChannel()
        self.connection = Connection()
        self.io.channels = self.channels  # type: ignore[assignment]
        self.io._watch = ConnectionWatch(self.channel)  # type: ignore[arg-type]
        self.busy = threading.Event()
        self.group: Optional[_Group] = None

    def is_over(self) -> None:
        assert self.group is not None
        assert self.group._over.wait(SECONDS), "the batch was not ended"


def sent(place: Place, io: Any) -> Any:
    place.channels.began = place.busy.set
    return io.unary("m", b"", LONG, ())


def being_sent(place: Place, io: Any) -> Any:
    place.channels.began = lambda: (place.busy.set(), place.is_over())[0]
    return io.unary("m", b"", LONG, ())


def stream(place: Place, io: Any) -> Any:
    messages = Messages()
    wait = in_thread(lambda: (wait_for(lambda: messages.taken == 3), place.busy.set()))
    try:
        return io.exchange("m", messages, 3, LONG, ())
    finally:
        wait()
        assert messages.taken <= 4


def stream_being_begun(place: Place, io: Any) -> Any:
    place.channels.began = lambda: (place.busy.set(), place.is_over())[0]
    return io.exchange("m", Messages(), 3, LONG, ())


def pause(place: Place, io: Any) -> Any:
    place.busy.set()
    return io.pause(10 * SECONDS)


def waits_for_a_connection(place: Place, io: Any) -> Any:
    wait = in_thread(lambda: (wait_for(lambda: bool(place.channel.told)), place.busy.set()))
    try:
        assert io.connected(LONG) is False
        raise attnd.Unavailable("no connection")
    finally:
        wait()


def asks_for_a_connection_too_late(place: Place, io: Any) -> Any:
    place.busy.set()
    place.is_over()
    assert io.reachable() is False
    assert io.connected(LONG) is False
    assert place.channel.asked == []
    raise attnd.Unavailable("no connection")


def local_call(place: Place, io: Any) -> Any:
    with io.interruptible(place.connection):
        place.busy.set()
        assert place.connection.interrupted.wait(SECONDS), "the connection was not interrupted"
        raise attnd.Unavailable("lost")


def local_call_begun_too_late(place: Place, io: Any) -> Any:
    place.busy.set()
    place.is_over()
    with io.interruptible(place.connection):
        raise AssertionError("it was begun")


STATES: Dict[str, Callable[[Place, Any], Any]] = {
    state.__name__: state
    for state in (
        sent,
        being_sent,
        stream,
        stream_being_begun,
        pause,
        waits_for_a_connection,
        asks_for_a_connection_too_late,
        local_call,
        local_call_begun_too_late,
    )
}


class OwnError(Exception):
    """What a caller's iterator raises."""


ENDS: Dict[str, Any] = {
    "a call fails": attnd.NotFound("no such model"),
    "an interrupt": KeyboardInterrupt(),
    "an exception of the caller's": OwnError(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("state", STATES)
def test_an_early_end(state: str, end: str) -> None:
    place = Place()
    errors: List[BaseException] = []

    def under_way(io: Any) -> Operation[Any]:
        try:
            return (yield lambda: STATES[state](place, io))
        except BaseException as error:
            errors.append(error)
            raise

    def ends(io: Any) -> Operation[Any]:
        def step() -> Any:
            assert place.busy.wait(SECONDS), "the other operation is not where it should be"
            raise ENDS[end]

        return (yield step)

    later: List[Any] = []

    def never(io: Any) -> Operation[Any]:
        later.append(io)
        return (yield lambda: None)

    place.group = _Group(place.io, iter([under_way, ends, never, never]), True)
    with pytest.raises(type(ENDS[end])) as caught:
        in_thread(lambda: place.group.run(2))()  # type: ignore[union-attr]
    assert caught.value is ENDS[end]
    wait_for(lambda: len(errors) == 1)  # after an interrupt nobody waits for the other threads
    assert isinstance(errors[0], attnd.Error)
    assert later == []
    assert all(call.cancelled.is_set() for call in place.channels.calls)
    for sender in place.channels.senders:
        sender()
    wait_for(lambda: not place.group._calls and not place.group._connections)  # type: ignore[union-attr]
    place.io._watch.end()


@pytest.mark.parametrize("width", [1, 2, 7])
def test_errors_in_their_places_end_nothing(width: int) -> None:
    io = BlockingIo(scripted_core(None, None).options)  # type: ignore[arg-type]
    together: List[int] = []
    most: List[int] = []

    def one(i: int) -> Any:
        def start(_: Any) -> Operation[int]:
            def step() -> int:
                together.append(i)
                most.append(len(together))
                together.remove(i)
                if i % 3 == 1:
                    raise attnd.NotFound(str(i))
                return i

            return (yield step)

        return start

    results = io.together((one(i) for i in range(20)), width, False)
    assert [r.message if isinstance(r, attnd.Error) else r for r in results] == [
        str(i) if i % 3 == 1 else i for i in range(20)
    ]
    assert max(most) <= width
    io.close()


def test_no_more_operations_at_once_than_the_width() -> None:
    io = BlockingIo(scripted_core(None, None).options)  # type: ignore[arg-type]
    waiting = threading.Semaphore(0)
    running: List[int] = []
    go = threading.Event()

    def start(_: Any) -> Operation[None]:
        def step() -> None:
            running.append(1)
            waiting.release()
            assert go.wait(SECONDS)

        return (yield step)

    batch = in_thread(lambda: io.together([start] * 9, 4, True))
    for _ in range(4):
        assert waiting.acquire(timeout=SECONDS), "fewer operations than the width"
    assert not waiting.acquire(timeout=0.05)
    go.set()
    batch()
    assert len(running) == 9
    io.close()


def test_a_sender_keeps_its_window() -> None:
    """Each answer makes room for one message, and the end for none."""
    messages = Messages()
    with Sender(messages, 3) as sender:
        given = in_thread(lambda: list(sender.messages()))
        for answers in range(4):
            wait_for(lambda: messages.taken == 3 + answers)  # noqa: B023
            assert given.is_under_way()

            class Answers(FakeCall):
                def __iter__(self) -> Iterator[bytes]:
                    yield b"answer"

            call = Answers()
            sender.receive(None, call)  # type: ignore[arg-type]
            assert call.cancelled.is_set()
        wait_for(lambda: messages.taken == 7)
    assert len(given()) == 7
    assert messages.accepted == [b"answer"] * 4


def test_an_answer_that_is_not_accepted_ends_the_stream() -> None:
    place = Place()

    class Refusing(Messages):
        def accept(self, message: bytes) -> None:
            raise attnd.Internal("not an answer")

    class Answering(FakeCall):
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            yield from super().__iter__()

    call = Answering()
    place.channels._call = lambda: call  # type: ignore[method-assign]
    with pytest.raises(attnd.Internal):
        in_thread(lambda: place.io.exchange("m", Refusing(), 2, LONG, ()))()
    assert call.cancelled.is_set()
    for sender in place.channels.senders:
        sender()
    place.io._watch.end()


def test_a_closed_client_begins_nothing() -> None:
    place = Place()
    place.io.closed = True
    group = _Group(place.io, iter(()), True)
    for io in (place.io, group):
        for begin in (
            lambda io=io: io.unary("m", b"", LONG, ()),  # type: ignore[misc]
            lambda io=io: io.exchange("m", Messages(), 2, LONG, ()),  # type: ignore[misc]
        ):
            with pytest.raises(attnd.FailedPrecondition):
                begin()
    assert place.channels.calls == []
