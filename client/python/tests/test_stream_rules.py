"""Which calls of a job are sent, sent again and answered, step by step: none is lost, and none is sent twice."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

import attnd
from attnd._deadline import Deadline
from attnd._operation import run
from attnd._stream import Job, NoStreams, _attempt, _Stream, compute_many
from attnd.v1 import attention_pb2
from fake_server import answer_piece
from inputs import tensors
from scripted import Clock, ScriptedIo, scripted_core

COUNT = 6


def requests(count: int = COUNT) -> Iterator[attnd.ComputeRequest]:
    return iter([attnd.ComputeRequest(*tensors(queries=1 + i), "m") for i in range(count)])


def job_of(return_errors: bool = True, count: int = COUNT) -> Job:
    return Job(requests(count), return_errors, "grpc")


def id_of(message: bytes) -> int:
    return int(attention_pb2.StreamAttentionRequest.FromString(message).id)


def answer(message: bytes, going_away: bool = False, code: int = 0) -> bytes:
    if code:
        made = attention_pb2.StreamAttentionResponse(id=id_of(message), code=code, message="no")
    else:
        made = attention_pb2.StreamAttentionResponse.FromString(answer_piece(message))
    made.going_away = going_away
    return made.SerializeToString()


def taken(stream: _Stream, count: int) -> List[bytes]:
    found = [stream.next_message() for _ in range(count)]
    assert None not in found
    return found  # type: ignore[return-value]


def left(job: Job) -> List[int]:
    """The calls that are still to be sent."""
    return [item[0] for item in iter(job.take, None)]


def test_all_are_sent_once_and_answered_in_any_order() -> None:
    job = job_of()
    stream = _Stream(job)
    messages = taken(stream, COUNT)
    assert stream.next_message() is None
    for message in reversed(messages):
        stream.accept(answer(message))
    stream.end()
    stream.check()
    assert left(job) == []
    assert [result.output.shape[2] for result in job.results(None)] == [1, 2, 3, 4, 5, 6]  # type: ignore[union-attr]


def test_what_is_not_answered_is_given_back() -> None:
    job = job_of()
    stream = _Stream(job)
    messages = taken(stream, 4)
    stream.accept(answer(messages[1]))
    stream.end()
    with pytest.raises(attnd.Internal):
        stream.check()
    assert sorted(left(job)) == [0, 2, 3, 4, 5]


@pytest.mark.parametrize("code", [14, 5])
def test_only_what_a_stopping_server_refused_is_given_back(code: int) -> None:
    """Another error is the call's result."""
    job = job_of()
    stream = _Stream(job)
    for i, message in enumerate(taken(stream, COUNT)):
        stream.accept(answer(message, code=code if i in (1, 4) else 0))
    assert stream.next_message() is None
    stream.end()
    if code == 14:
        with pytest.raises(attnd.Unavailable, match=r"^no$"):
            stream.check()
        assert left(job) == [1, 4]
    else:
        stream.check()
        assert left(job) == []
        assert [type(one).__name__ for one in job.results(None)].count("NotFound") == 2


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("sent", [1, 3, COUNT])
def test_a_server_that_leaves_gets_no_more(sent: int, refused: bool) -> None:
    job = job_of()
    stream = _Stream(job)
    messages = taken(stream, sent)
    stream.accept(answer(messages[0], going_away=True))
    if sent < COUNT:
        assert stream.next_message() is None
        assert stream.next_message() is None
    for message in messages[1:]:
        stream.accept(answer(message, code=14 if refused else 0))  # going_away is not said again
    if sent == COUNT:
        assert stream.next_message() is None
    stream.end()
    expected = [*range(1, sent)] * refused + [*range(sent, COUNT)]
    if expected:
        with pytest.raises(attnd.Unavailable):
            stream.check()
    else:
        stream.check()
    assert sorted(left(job)) == expected


def test_a_call_that_is_taken_as_the_stream_ends_is_given_back() -> None:
    """grpcio's thread takes it, and meanwhile the stream breaks."""
    job = job_of()
    stream = _Stream(job)
    taken(stream, 2)
    take = job.take

    def and_ends() -> Any:
        item = take()
        stream.end()
        return item

    job.take = and_ends  # type: ignore[method-assign]
    assert stream.next_message() is None
    job.take = take  # type: ignore[method-assign]
    assert sorted(left(job)) == [0, 1, 2, 3, 4, 5]


def test_a_stream_that_has_ended_takes_nothing_more() -> None:
    job = job_of()
    stream = _Stream(job)
    stream.end()
    for _ in range(COUNT + 1):
        stream.next_message()
    assert sorted(left(job)) == [0, 1, 2, 3, 4, 5]


WRONG: Dict[str, Callable[[List[bytes]], bytes]] = {
    "no message": lambda sent: b"\xff",
    "an id that was not sent": lambda sent: attention_pb2.StreamAttentionResponse(id=77).SerializeToString(),
    "an answer that came already": lambda sent: answer(sent[0]),
    "another dtype": lambda sent: attention_pb2.StreamAttentionResponse(
        id=1, result=attention_pb2.ComputeAttentionResponse(dtype=2), output=bytes(8 * 2 * 64 * 4)
    ).SerializeToString(),
    "too short": lambda sent: attention_pb2.StreamAttentionResponse(
        id=1, result=attention_pb2.ComputeAttentionResponse(dtype=1), output=bytes(8 * 2 * 64 * 4 - 4)
    ).SerializeToString(),
    "too long": lambda sent: attention_pb2.StreamAttentionResponse(
        id=1, result=attention_pb2.ComputeAttentionResponse(dtype=1), output=bytes(8 * 2 * 64 * 4 + 4)
    ).SerializeToString(),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_answer(wrong: str) -> None:
    stream = _Stream(job_of())
    messages = taken(stream, 3)
    stream.accept(answer(messages[0]))
    with pytest.raises(attnd.Internal):
        stream.accept(WRONG[wrong](messages))


def test_an_error_ends_a_job_that_returns_none() -> None:
    job = job_of(return_errors=False)
    stream = _Stream(job)
    message = taken(stream, 1)[0]
    with pytest.raises(attnd.NotFound):
        stream.accept(answer(message, code=5))


@pytest.mark.parametrize("return_errors", [False, True])
def test_a_request_that_is_none(return_errors: bool) -> None:
    """Its error is its result, or the job's end: nothing is sent after it."""
    job = Job(iter([next(requests()), None, next(requests())]), return_errors, "grpc")  # type: ignore[list-item]
    assert left(job) == ([0, 2] if return_errors else [0])
    if return_errors:
        job.check()
        assert isinstance(job.results(None)[1], attnd.InvalidArgument)
    else:
        with pytest.raises(attnd.InvalidArgument):
            job.check()
        job.give_back([(0, None)])  # type: ignore[list-item]
        assert job.take() is None


def test_results_of_what_was_never_read() -> None:
    lost = attnd.Unavailable("lost")
    job = job_of()
    stream = _Stream(job)
    stream.accept(answer(taken(stream, 2)[1]))
    results = job.results(lost)
    assert [result is lost for result in results] == [True, False, True, True, True, True]
    assert len(results) == COUNT
    assert isinstance(job_of().results(None)[0], attnd.Cancelled)


class Streams(ScriptedIo):
    """Each exchange plays one script: how many calls it takes and answers, and how it ends."""

    def __init__(self, clock: Clock, *scripts: Any) -> None:
        super().__init__(clock)
        self.sent: List[List[int]] = []
        self._scripts = list(scripts)

    def exchange(self, method: str, stream: Any, in_flight: int, deadline: Deadline, metadata: Any) -> None:
        takes, answers, error = self._scripts.pop(0)
        messages = [message for message in (stream.next_message() for _ in range(takes)) if message is not None]
        self.sent.append([id_of(message) for message in messages])
        for message in messages[:answers]:
            stream.accept(answer(message))
        if error is not None:
            raise error
        assert stream.next_message() is None


def made(io: Streams, return_errors: bool = True, retry: Optional[attnd.Retry] = attnd.Retry()) -> List[Any]:  # noqa: B008
    core = scripted_core(io, retry)
    core.policy.connected = True
    return run(compute_many(core, io, job_of(return_errors), Deadline(60), ()))


LOST = attnd.Unavailable("lost")


def test_a_broken_stream_goes_on_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    io = Streams(Clock(monkeypatch, "_retry", "_deadline"), (3, 1, LOST), (2, 2, LOST), (COUNT + 1, COUNT, None))
    results = made(io)
    assert all(isinstance(result, attnd.ComputeReply) for result in results)
    assert io.sent[0] == [0, 1, 2]
    assert sorted(io.sent[1]) == [1, 2]  # first what was sent before
    assert sorted(io.sent[2]) == [3, 4, 5]
    assert [one[0] for one in io.done] == ["pause", "connected"] * 2


@pytest.mark.parametrize("return_errors", [False, True])
def test_a_stream_that_stays_broken(monkeypatch: pytest.MonkeyPatch, return_errors: bool) -> None:
    broken = attnd.DataLoss("odd")
    io = Streams(Clock(monkeypatch, "_retry", "_deadline"), (4, 2, broken))
    if return_errors:
        results = made(io, return_errors)
        assert [type(result).__name__ for result in results] == ["ComputeReply"] * 2 + ["DataLoss"] * 4
    else:
        with pytest.raises(attnd.DataLoss):
            made(io, return_errors)


@pytest.mark.parametrize(("answers", "unknown"), [(0, True), (1, False)])
def test_a_server_without_the_method(monkeypatch: pytest.MonkeyPatch, answers: int, unknown: bool) -> None:
    """Which has answered nothing."""
    io = Streams(Clock(monkeypatch, "_retry", "_deadline"), (2, answers, attnd.Unimplemented("no such method")))
    job = job_of()
    with pytest.raises(NoStreams if unknown else attnd.Unimplemented):
        run(_attempt(io, job, Deadline(60), ()))
    assert sorted(left(job)) == [*range(answers, COUNT)]
