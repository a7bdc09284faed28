"""A session's stream over gRPC: however a question ends, no timer, no thread and no call are left."""

from __future__ import annotations

import asyncio
import gc
import math
import queue
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

import grpc
import numpy as np
import pytest

import attnd
from attnd import _duplex, _grpc_duplex
from attnd._deadline import Deadline
from attnd._duplex import CLOSE, OPEN, STEP, Question
from attnd._grpc_duplex import AwaitingDuplex, BlockingDuplex
from attnd._status import from_rpc_error
from attnd._watch import WATCH
from attnd.v1 import session_pb2
from waits import SECONDS, in_thread, wait_for

CLOSED = b"\x2a\x00"  # SessionRequest{close {}}


class RpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "ended"

    def trailing_metadata(self) -> Any:
        return ()


def reply(step: int) -> bytes:
    return session_pb2.SessionReply(result=session_pb2.SessionStepResult(step=step)).SerializeToString()


def going_away() -> bytes:
    found = session_pb2.SessionReply()
    found.going_away.time_left.seconds = 3
    return found.SerializeToString()


def question(step: int = 1, size: int = 0) -> Question:
    return Question(STEP, session_pb2.SessionStep(step=step).SerializeToString(), [(100, np.zeros(size, np.uint8))])


def accept(answer: session_pb2.SessionReply, tensors: Any) -> Optional[int]:
    return answer.result.step if answer.HasField("result") else None


class BlockingPlace:
    """A stream whose server the test plays: `say` gives it answers, or an exception that ends it."""

    def __init__(self) -> None:
        self.answers: queue.Queue[Any] = queue.Queue()
        self.sent: List[bytes] = []
        self.cancelled = threading.Event()
        self.duplex: Any = BlockingDuplex(self, "m", ())
        self.error_of = from_rpc_error

    def stream(self, method: str, messages: Any, deadline: Deadline, metadata: Any) -> Any:
        self.sender = in_thread(lambda: [self.sent.append(message) for message in messages])
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> bytes:
        answer = self.answers.get(timeout=SECONDS)
        if isinstance(answer, BaseException):
            raise answer
        found: bytes = answer
        return found

    def cancel(self) -> None:
        self.cancelled.set()
        self.answers.put(RpcError(grpc.StatusCode.CANCELLED))

    def say(self, *answers: Any) -> None:
        for answer in answers:
            self.answers.put(answer)

    def call(self, work: Any) -> Any:
        return work

    def ended(self) -> None:
        assert self.cancelled.is_set()
        self.sender()


class AwaitingPlace:
    """As BlockingPlace."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: List[bytes] = []
        self.finished = False
        self.cancelled = threading.Event()
        self.status: Any = grpc.StatusCode.OK
        self.duplex: Any = AwaitingDuplex(self, from_rpc_error)

    async def write(self, message: bytes) -> None:
        if self.cancelled.is_set():
            raise asyncio.InvalidStateError
        self.sent.append(message)

    async def done_writing(self) -> None:
        self.finished = True

    async def read(self) -> Any:
        answer = await self.answers.get()
        if isinstance(answer, StopIteration):
            return _grpc_duplex._EOF
        if isinstance(answer, grpc.RpcError):
            self.status = answer.code()  # type: ignore[attr-defined]
            return _grpc_duplex._EOF
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def done(self) -> bool:
        return self.cancelled.is_set()

    async def code(self) -> Any:
        return self.status

    async def details(self) -> str:
        return "ended"

    async def initial_metadata(self) -> Any:
        return ()

    trailing_metadata = initial_metadata

    def cancel(self) -> None:
        self.cancelled.set()

    def say(self, *answers: Any) -> None:
        for answer in answers:
            self.answers.put_nowait(answer)

    def call(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, SECONDS))

    def ended(self) -> None:
        assert self.cancelled.is_set()


PLACES: Dict[str, Any] = {"Session": BlockingPlace, "AsyncSession": AwaitingPlace}


@pytest.fixture(params=PLACES)
def place(request: Any) -> Any:
    before = dict(WATCH._entries)
    found = PLACES[request.param]()
    yield found
    assert WATCH._entries.keys() <= before.keys(), "a timer is left"
    if isinstance(found, AwaitingPlace):
        assert not asyncio.all_tasks(found.loop)
        found.loop.close()
    else:
        found.cancel()
        found.duplex._questions.put(None)
        found.sender()


def ask(place: Any, seconds: float = math.inf, make: Any = question, take: Any = accept) -> Any:
    return place.call(place.duplex.ask(make, take, seconds))


def refuses(*_: Any) -> Any:
    raise attnd.Internal("not an answer")


class Interrupt(BaseException):
    """As KeyboardInterrupt, which an event loop does not hand to tasks."""


def interrupts(*_: Any) -> Any:
    raise Interrupt


# What the server says, the arguments of the question, and the error with which the stream ends.
ENDS: Dict[str, Tuple[Tuple[Any, ...], Dict[str, Any], type, str]] = {
    "an error": ((RpcError(grpc.StatusCode.UNAVAILABLE),), {}, attnd.Unavailable, "ended"),
    "an error after a notice": (
        (going_away(), RpcError(grpc.StatusCode.ABORTED)),
        {},
        attnd.Aborted,
        "ended",
    ),
    "an end": ((StopIteration(),), {}, attnd.Internal, "before it had answered"),
    "no message": ((b"\xff\xff",), {}, attnd.Internal, "not an answer|no protobuf"),
    "not an answer": ((reply(1),), {"take": refuses}, attnd.Internal, "not an answer"),
    "nothing in time": ((), {"seconds": 0.1}, attnd.DeadlineExceeded, "given up"),
    "notices, and nothing in time": ((going_away(),) * 3, {"seconds": 0.1}, attnd.DeadlineExceeded, "given up"),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_end(place: Any, end: str) -> None:
    says, options, error, words = ENDS[end]
    place.say(*says)
    for _ in range(3):
        with pytest.raises(error, match=words) as caught:
            ask(place, **options)
        assert type(caught.value) is error
    place.ended()
    assert len(place.sent) == 1
    place.call(place.duplex.close())  # there is nothing to do
    assert len(place.sent) == 1


def test_an_interrupt(place: Any) -> None:
    place.say(reply(1))
    with pytest.raises(Interrupt):
        ask(place, take=interrupts)
    with pytest.raises(attnd.Unavailable, match="interrupted"):
        ask(place)
    place.ended()


@pytest.mark.parametrize("seconds", [0.05, 1000.0, math.inf])
def test_an_answer_in_time_ends_nothing(place: Any, seconds: float) -> None:
    before = set(WATCH._entries)
    for step in range(1, 4):
        place.say(going_away(), reply(step))
        assert ask(place, seconds, lambda: question(step)) == step  # noqa: B023
        assert set(WATCH._entries) == before
        assert not place.cancelled.is_set()
    late = threading.Event()
    if isinstance(place, BlockingPlace):
        # The timer of an answered question would have ended by now.
        number = WATCH.add(time.monotonic() + 0.15, late.set)
        assert late.wait(SECONDS)
        WATCH.remove(number)
    assert not place.cancelled.is_set()
    assert place.duplex._failure is None


@pytest.mark.parametrize("over", [0, 1])
def test_the_largest_question(place: Any, over: int) -> None:
    """A larger one is not sent, and the session goes on."""
    size = 300
    place.duplex.max_message_bytes = len(_grpc_duplex._message(question(size=size), math.inf)) - over
    place.say(reply(1))
    if over:
        with pytest.raises(attnd.ResourceExhausted, match="max_request_bytes") as caught:
            ask(place, 1000.0, lambda: question(size=size))
        assert caught.value.field == "q"
        assert place.sent == []
        assert ask(place, 1000.0) == 1
    else:
        assert ask(place, 1000.0, lambda: question(size=size)) == 1
    assert place.duplex._failure is None


def test_a_question_that_cannot_be_made_changes_nothing(place: Any) -> None:
    with pytest.raises(attnd.Internal):
        ask(place, make=refuses)
    place.say(reply(1))
    assert ask(place) == 1


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("says", ["an end", "answers and an end", "an error", "nothing"])
def test_closing(place: Any, resumable: bool, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says that the session is over where the server would keep it, and waits for its end, but not for long."""
    monkeypatch.setattr(_duplex, "CLOSE_SECONDS", 0.1 if says == "nothing" else SECONDS)
    place.duplex.resumable = resumable
    place.say(
        *{
            "an end": (StopIteration(),),
            "answers and an end": (reply(1), going_away(), StopIteration()),
            "an error": (RpcError(grpc.StatusCode.ABORTED),),
            "nothing": (),
        }[says]
    )
    place.call(place.duplex.close())
    place.ended()
    assert place.sent == [CLOSED] * resumable
    assert isinstance(place, BlockingPlace) or place.finished
    place.call(place.duplex.close())
    with pytest.raises(attnd.FailedPrecondition, match="closed"):
        ask(place)
    assert place.sent == [CLOSED] * resumable


def test_a_dropped_stream_leaves_no_thread() -> None:
    place = BlockingPlace()
    assert place.sender.is_under_way()
    place.duplex = None
    gc.collect()
    place.sender()


def test_questions_take_turns() -> None:
    place = BlockingPlace()
    results = [in_thread(lambda i=i: place.duplex.ask(lambda: question(i), accept)) for i in range(3)]  # type: ignore[misc]
    for i in range(3):
        wait_for(lambda: len(place.sent) == i + 1)  # noqa: B023
        assert sum(result.is_under_way() for result in results) == 3 - i
        place.say(reply(7))
        wait_for(lambda: sum(result.is_under_way() for result in results) == 2 - i)  # noqa: B023
    assert [result() for result in results] == [7] * 3
    place.duplex._end(attnd.Cancelled("over"))
    place.ended()


def test_a_cancelled_task_ends_the_stream() -> None:
    place = AwaitingPlace()

    async def main() -> None:
        task = asyncio.ensure_future(place.duplex.ask(question, accept, 1000.0))
        waits = asyncio.ensure_future(place.duplex.ask(question, accept, 1000.0))
        while not place.sent:
            await asyncio.sleep(0)
        waits.cancel()  # it has not begun: nothing ends
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert place.duplex._failure is None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(attnd.Unavailable, match="interrupted"):
            await place.duplex.ask(question, accept)

    place.call(main())
    place.ended()
    place.loop.close()


@pytest.mark.parametrize("done", [False, True])
def test_a_write_that_fails_says_why(done: bool) -> None:
    """If the server's status has come."""
    place = AwaitingPlace()
    place.status = grpc.StatusCode.ABORTED

    async def fails(message: bytes) -> None:
        if done:
            place.cancelled.set()
        raise asyncio.InvalidStateError

    place.write = fails  # type: ignore[method-assign]
    with pytest.raises(attnd.Aborted if done else attnd.Unavailable):
        ask(place)
    place.ended()
    place.loop.close()


def test_the_messages_are_those_that_protobuf_would_write() -> None:
    for number, body in ((OPEN, session_pb2.SessionOpen(rows=3)), (STEP, session_pb2.SessionStep(step=7))):
        message = _grpc_duplex._message(Question(number, body.SerializeToString()), math.inf)
        parsed = session_pb2.SessionRequest.FromString(message)
        assert getattr(parsed, {OPEN: "open", STEP: "step"}[number]) == body
    assert session_pb2.SessionRequest.FromString(CLOSED).HasField("close")
    assert _grpc_duplex._CLOSE == CLOSED
    assert CLOSE == session_pb2.SessionRequest.CLOSE_FIELD_NUMBER
