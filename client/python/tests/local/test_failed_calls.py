"""Shared memory under failure: what the server may still write to is used for nothing else."""

from __future__ import annotations

import socket
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import pytest

import attnd
from attnd import _host
from attnd._deadline import Deadline
from attnd._operation import run
from attnd._request import Call
from attnd._transport import NotTaken
from attnd.v1 import attention_pb2, local_pb2
from inputs import tensors
from scripted import Clock, ScriptedIo, scripted_core
from waits import wait_for

from .fake_server import FakeServer

SIZES = {"queries": 100}
UNKNOWN = "q_shared.region"


class Way:
    """One of the transports, whose server the test plays: `answer` gets the request and what makes a right answer.

    Attributes:
        requests: of the calls that came.
    """

    def __init__(self, name: str, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        options = scripted_core(ScriptedIo(Clock(monkeypatch)), None).options
        self.transport: Any = next(
            one for one in _host.transports(fake.path[: -len(".shm")], options, False) if one.name == name
        )
        self.host = self.transport._host
        self.fake = fake
        self.requests: List[attention_pb2.ComputeAttentionRequest] = []
        self.answer: Callable[[Any, Callable[[], Any]], Any] = lambda request, right: right()
        self.io = ScriptedIo(Clock(monkeypatch))
        self.io.unary = self._unary  # type: ignore[method-assign]
        fake.on_call = lambda server, call: self._local(call)

    def _local(self, call: local_pb2.LocalCall) -> Any:
        self.requests.append(call.request)
        made = self.answer(call.request, lambda: self.fake.result(call))
        if made is not None:
            made.id = call.id
        return made

    def _unary(self, method: str, payload: bytes, *_: Any) -> bytes:
        request = attention_pb2.ComputeAttentionRequest.FromString(payload)
        self.requests.append(request)
        made = self.answer(request, lambda: self.fake.result(local_pb2.LocalCall(id=1, request=request)))
        if isinstance(made, bytes):
            return made
        if made.code != 0:
            detail = made.detail
            raise attnd.errors.error_class(made.code)(made.message, field=detail.field)
        result: bytes = made.result.SerializeToString()
        return result

    def attend(self, timeout: float = 20.0, **more: Any) -> Any:
        call = Call.of(attnd.ComputeRequest(*tensors(**SIZES), "m", **more))
        return run(self.transport.attempt(self.io, call, Deadline(timeout), ()))

    def regions(self) -> List[Any]:
        """Of the idle staging memory."""
        return [block.region for block, _ in self.host.stager.pool._idle]


@pytest.fixture(params=[_host.LOCAL, _host.SHARED])
def way(request: Any, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    found = Way(request.param, fake, monkeypatch)
    yield found
    found.host.close()


def refused(code: int, field: str = "") -> Callable[[Any, Any], Any]:
    def answer(request: Any, right: Any) -> Any:
        made = local_pb2.LocalAnswer(id=1, code=code, message="no")
        made.detail.field = field
        return made

    return answer


def changed(change: Callable[[Any], None]) -> Callable[[Any, Any], Any]:
    def answer(request: Any, right: Any) -> Any:
        made = right()
        change(made)
        return made

    return answer


def another_dtype(made: Any) -> None:
    made.result.dtype = 3


# What fails when the server has been told of the memory, and with which error.
FAILURES: Dict[str, Tuple[Callable[[Any, Any], Any], type]] = {
    "refused": (refused(5), attnd.NotFound),
    "too late at the server": (refused(4), attnd.DeadlineExceeded),
    "cancelled at the server": (refused(1), attnd.Cancelled),
    "stopping": (refused(14), attnd.Unavailable),
    "another dtype": (changed(another_dtype), attnd.Internal),
    "an unknown region that is nobody's": (refused(9, "region"), attnd.FailedPrecondition),
}


@pytest.mark.parametrize("shared_out", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_the_memory_of_a_failed_call_is_not_used_again(way: Way, failure: str, shared_out: bool) -> None:
    answer, error = FAILURES[failure]
    q, _, v = tensors(**SIZES)
    out = way.host.memory.empty(q.nbytes).view(np.float32).reshape(q.shape) if shared_out else None
    assert np.array_equal(way.attend(out=out).output, v)
    (before,) = way.regions()
    way.requests.clear()
    held: List[Any] = []

    def fails(request: Any, right: Any) -> Any:
        held.extend(way.regions())
        return answer(request, right)

    way.answer = fails
    with pytest.raises(error):
        way.attend(out=out)
    assert held == []  # it uses the only block that there is
    assert before not in way.regions()
    (failed,) = way.requests
    way.answer = lambda request, right: right()
    # The server writes late, into the memory that the failed call named: no other call sees it.
    way.requests.clear()

    def write_late(request: Any, right: Any) -> Any:
        made = right()
        region = failed.q_shared.region
        if region in way.fake.regions:
            way.fake.regions[region][:] = b"\xff" * len(way.fake.regions[region])
        return made

    way.answer = write_late
    assert np.array_equal(way.attend(return_log_sum_exp=True).output, v)
    assert way.requests[0].q_shared.region != failed.q_shared.region
    assert len(way.regions()) == 1


@pytest.mark.parametrize("failure", ["interrupt", "not answered", "lost", "garbage", "too short"])
def test_other_ways_to_fail(way: Way, failure: str) -> None:
    """That differ by transport, or end the connection."""
    way.attend()
    (before,) = way.regions()
    local = way.transport.name == _host.LOCAL

    def fails(request: Any, right: Any) -> Any:
        if failure == "garbage" and not local:
            return b"\xff\xff"
        if failure == "garbage":
            way.fake.connections[0].send(b"\xff\xff")
            return None
        if failure == "too short":
            made = right()
            # An output in the message counts only if none was written to shared memory.
            made.result.ClearField("dtype")
            return made
        if failure == "lost" and local:
            way.fake.connections[0].shutdown(socket.SHUT_RDWR)
            return None
        if failure == "not answered" and local:
            return None
        raise {
            "interrupt": KeyboardInterrupt(),
            "not answered": attnd.DeadlineExceeded("late"),
            "lost": attnd.Unavailable("lost"),
        }[failure]

    way.answer = fails
    if failure == "interrupt" and local:
        with pytest.MonkeyPatch.context() as patch:

            def interrupted(*_: Any, **__: Any) -> Any:
                raise KeyboardInterrupt

            patch.setattr(way.transport._door, "call", interrupted)
            with pytest.raises(KeyboardInterrupt):
                way.attend()
    else:
        with pytest.raises((attnd.Error, KeyboardInterrupt)):
            way.attend(0.2 if failure == "not answered" else 20.0)
    assert before not in way.regions()
    way.answer = lambda request, right: right()
    assert np.array_equal(way.attend().output, tensors(**SIZES)[2])


@pytest.mark.parametrize("times", range(6))
def test_memory_that_the_server_does_not_know_is_made_known(way: Way, times: int) -> None:
    """Up to three times in a call, in case the server restarts several times."""
    way.attend()
    left = [times]
    generations: List[int] = []

    def forgets(request: Any, right: Any) -> Any:
        generations.append(way.host.memory.keeper.generation)
        if left[0] == 0:
            return right()
        left[0] -= 1
        return refused(9, UNKNOWN)(request, right)

    way.answer = forgets
    way.requests.clear()
    if times > 3:
        with pytest.raises(attnd.FailedPrecondition):
            way.attend()
        assert len(way.requests) == 4
        return
    assert np.array_equal(way.attend().output, tensors(**SIZES)[2])
    assert len(way.requests) == times + 1
    assert len({request.q_shared.region for request in way.requests}) == times + 1
    assert generations == sorted(set(generations))  # each time by another connection
    assert len(way.regions()) == 1


def test_a_call_that_fails_late_leaves_what_others_have_registered_since(way: Way) -> None:
    """Of several threads after a restart only the first drops the connection."""
    way.attend()
    keeper = way.host.memory.keeper
    _array, other = way.host.memory.allocate(4096)
    first: List[Any] = []

    def other_thread(request: Any, right: Any) -> Any:
        if first:
            return right()
        keeper.forget(keeper.generation)
        assert keeper.register(other)
        first.append((keeper.generation, other.handle))
        return refused(9, UNKNOWN)(request, right)

    way.answer = other_thread
    way.attend()
    assert [(keeper.generation, other.handle)] == first


@pytest.mark.parametrize("reason", ["too large", "refused region", "metadata"])
def test_a_call_that_another_way_takes_leaves_nothing(way: Way, reason: str) -> None:
    if reason == "too large" and way.transport.name == _host.SHARED:
        pytest.skip("gRPC takes it")
    call = Call.of(attnd.ComputeRequest(*tensors(**SIZES), "m"))
    metadata: Any = ()
    if reason == "too large":
        way.fake.on_hello = lambda: local_pb2.LocalWelcome(version=1, max_message_bytes=500, max_calls=4)
    elif reason == "refused region":
        way.fake.registers = 8
    elif way.transport.name == _host.SHARED:
        pytest.skip("gRPC has metadata")
    else:
        metadata = (("a", "b"),)
    with pytest.raises(NotTaken):
        run(way.transport.attempt(way.io, call, Deadline(20.0), metadata))
    assert way.requests == []
    wait_for(lambda: len(way.regions()) == way.host.memory.count)


def test_a_call_that_ends_after_close_keeps_no_memory(way: Way) -> None:
    def close(request: Any, right: Any) -> Any:
        made = right()
        way.host.stager.pool.close()
        return made

    way.answer = close
    way.attend()
    assert way.regions() == []
    wait_for(lambda: way.host.memory.count == 0)
