"""attend_many and compute_many over streams."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Iterator

import grpc
import pytest

import attnd
from attnd import _stream
from attnd._deadline import Deadline
from attnd.v1 import attention_pb2
from conftest import Server
from fake_server import (  # noqa: F401
    COMPUTE,
    STREAM,
    FakeServer,
    answer_compute,
    answer_piece,
    fake,
    refuse,
    when_ended,
)
from inputs import same_bits, tensors
from waits import until

FAST = attnd.Retry(initial_backoff=0.001)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
both = pytest.mark.parametrize("asynchronous", [False, True], ids=["Client", "AsyncClient"])


def attend_many(target: str, asynchronous: bool, requests: Any, *, timeout: Any = None, **options: Any) -> list[Any]:
    """With every error in its place, and the server known."""
    if not asynchronous:
        with attnd.Client(target, retry=FAST, **options) as client:
            client.server_info()
            return client.attend_many(requests, return_errors=True, timeout=timeout)

    async def ask() -> list[Any]:
        async with attnd.AsyncClient(target, retry=FAST, **options) as client:
            await client.server_info()
            return await client.attend_many(requests, return_errors=True, timeout=timeout)

    return asyncio.run(ask())


def requests_of(count: int, queries: int = 4) -> list[attnd.ComputeRequest]:
    return [attnd.ComputeRequest(*tensors(queries=queries), "m") for _ in range(count)]


def id_of(request: bytes) -> int:
    return int(attention_pb2.StreamAttentionRequest.FromString(request).id)


@both
@pytest.mark.parametrize("channels", [1, 3])
def test_results_are_those_of_single_calls(server: Server, asynchronous: bool, channels: int) -> None:
    requests = [attnd.ComputeRequest(*tensors(queries=1 + i % 9, seed=i), "t5-tiny") for i in range(60)]
    requests[7].q = None
    requests[11].model = "nobody"
    results = attend_many(server.tcp, asynchronous, iter(requests), channels=channels)
    assert len(results) == 60
    assert isinstance(results[7], attnd.InvalidArgument)
    assert isinstance(results[11], attnd.NotFound)
    assert results[11].field == "model"
    with attnd.Client(server.tcp) as client:
        for i, (request, result) in enumerate(zip(requests, results)):
            if i not in (7, 11):
                assert same_bits(result, client.attend(request.q, request.k, request.v, "t5-tiny"))


@both
def test_answers_in_another_order(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    def answer(requests: Any, context: Any) -> Iterator[bytes]:
        held = list(zip(range(4), requests))
        for _, request in reversed(held):
            yield answer_piece(request)

    fake.handlers[STREAM] = answer
    shapes = [(1, 8, 1 + i, 64) for i in range(4)]
    requests = [requests_of(1, shape[2])[0] for shape in shapes]
    assert [result.shape for result in attend_many(fake.target, asynchronous, requests)] == shapes


@both
def test_a_refused_call_is_sent_again(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    seen: list[int] = []

    def answer(requests: Any, context: Any) -> Iterator[bytes]:
        for request in requests:
            seen.append(id_of(request))
            if seen.count(2) == 1 and seen[-1] == 2:
                response = attention_pb2.StreamAttentionResponse(id=2, code=14, message="stopping")
                yield response.SerializeToString()
            else:
                yield answer_piece(request)

    fake.handlers[STREAM] = answer
    results = attend_many(fake.target, asynchronous, requests_of(5))
    assert [type(result).__name__ for result in results] == ["ndarray"] * 5
    assert sorted(seen) == [0, 1, 2, 2, 3, 4]


@both
def test_a_broken_stream_goes_on_with_what_is_not_answered(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    seen: list[int] = []

    def answer(requests: Any, context: Any) -> Iterator[bytes]:
        for request in requests:
            seen.append(id_of(request))
            if len(seen) == 4:
                context.abort(UNAVAILABLE, "connection lost")
            yield answer_piece(request)

    fake.handlers[STREAM] = answer
    results = attend_many(fake.target, asynchronous, iter(requests_of(30)))
    assert [type(result).__name__ for result in results] == ["ndarray"] * 30
    assert fake.calls.count(STREAM) == 2
    assert set(seen) == set(range(30))
    assert not {0, 1} & set(seen[4:])


@both
def test_no_more_calls_for_a_server_that_stops(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    """Else a long job would hold the stop up, until it is cut off."""
    begun: list[int] = []
    per_stream: list[int] = []

    def answer(requests: Any, context: Any) -> Iterator[bytes]:
        per_stream.append(0)
        leaves = len(per_stream) == 1
        for request in requests:
            per_stream[-1] += 1
            begun.append(id_of(request))
            message = attention_pb2.StreamAttentionResponse.FromString(answer_piece(request))
            message.going_away = leaves
            yield message.SerializeToString()

    fake.handlers[STREAM] = answer
    results = attend_many(fake.target, asynchronous, requests_of(100))
    assert all(not isinstance(result, Exception) for result in results)
    assert len(per_stream) == 2
    assert per_stream[0] <= 9, "what was under way, and one that was being sent"
    assert sorted(begun) == list(range(100)), "each once"


@both
def test_a_broken_stream_that_may_not_be_repeated(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    def answer(requests: Any, context: Any) -> Iterator[bytes]:
        yield answer_piece(next(requests))
        time.sleep(0.1)
        context.abort(grpc.StatusCode.DATA_LOSS, "odd")

    fake.handlers[STREAM] = answer
    results = attend_many(fake.target, asynchronous, iter(requests_of(20)))
    assert [type(result).__name__ for result in results] == ["ndarray"] + ["DataLoss"] * 19
    with attnd.Client(fake.target) as client, pytest.raises(attnd.DataLoss):
        client.attend_many(requests_of(20))


BAD_ANSWERS = {
    "an id that was not asked": attention_pb2.StreamAttentionResponse(id=99).SerializeToString(),
    "no protobuf message": b"\xff",
    "a StreamAttentionResponse of other fields": b"\x0a\x01x",
    "another dtype": attention_pb2.StreamAttentionResponse(
        id=0, result=attention_pb2.ComputeAttentionResponse(dtype=2), output=bytes(8 * 4 * 64 * 4)
    ).SerializeToString(),
    "no result": attention_pb2.StreamAttentionResponse(id=0).SerializeToString(),
}


@both
@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_answers_that_are_none(fake: FakeServer, asynchronous: bool, case: str) -> None:  # noqa: F811
    fake.handlers[STREAM] = lambda requests, context: iter([BAD_ANSWERS[case]])
    results = attend_many(fake.target, asynchronous, requests_of(2))
    assert [type(result).__name__ for result in results] == ["Internal"] * 2


@both
def test_a_stream_that_ends_early(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    fake.handlers[STREAM] = lambda requests, context: iter([answer_piece(request) for request in requests][:1])
    results = attend_many(fake.target, asynchronous, requests_of(3))
    assert [type(result).__name__ for result in results] == ["ndarray", "Internal", "Internal"]


def test_a_stream_that_ends_before_all_calls_were_sent(fake: FakeServer) -> None:  # noqa: F811
    fake.handlers[STREAM] = lambda requests, context: iter([answer_piece(next(requests))])
    results = attend_many(fake.target, False, requests_of(30))
    assert {type(result).__name__ for result in results[1:]} <= {"Internal", "ndarray"}
    assert isinstance(results[-1], attnd.Internal)


def test_requests_are_read_as_they_are_needed(fake: FakeServer) -> None:  # noqa: F811
    read, answered = [0], [0]
    ahead: list[int] = []

    def requests() -> Iterator[attnd.ComputeRequest]:
        for request in requests_of(100):
            read[0] += 1
            yield request

    def answer(pieces: Any, context: Any) -> Iterator[bytes]:
        for piece in pieces:
            time.sleep(0.002)
            ahead.append(read[0] - answered[0])
            answered[0] += 1
            yield answer_piece(piece)

    fake.handlers[STREAM] = answer
    with attnd.Client(fake.target) as client:
        assert len(client.attend_many(requests())) == 100
    assert max(ahead) <= 10


@both
def test_a_deadline(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    def answer(requests: Any, context: Any) -> Iterator[bytes]:
        yield answer_piece(next(requests))
        fake.hang(b"", context)

    fake.handlers[STREAM] = answer
    results = attend_many(fake.target, asynchronous, requests_of(3), timeout=0.5)
    assert [type(result).__name__ for result in results] == ["ndarray", "DeadlineExceeded", "DeadlineExceeded"]
    assert fake.cancelled.wait(30)


def hang(fake: FakeServer) -> Any:  # noqa: F811
    def answer(requests: Any, context: Any) -> Iterator[bytes]:
        yield from ()
        fake.hang(b"", context)

    return answer


@pytest.mark.parametrize("channels", [1, 2])
def test_closing_ends_streams(fake: FakeServer, channels: int) -> None:  # noqa: F811
    fake.handlers[STREAM] = hang(fake)
    client = attnd.Client(fake.target, channels=channels)
    threading.Timer(0.3, client.close).start()
    with pytest.raises((attnd.Cancelled, attnd.FailedPrecondition)):
        client.attend_many(requests_of(9))
    assert fake.cancelled.wait(30)


@pytest.mark.parametrize("channels", [1, 2])
def test_cancelling_a_task_ends_streams(fake: FakeServer, channels: int) -> None:  # noqa: F811
    fake.handlers[STREAM] = hang(fake)

    async def ask() -> None:
        async with attnd.AsyncClient(fake.target, channels=channels) as client:
            task = asyncio.ensure_future(client.attend_many(requests_of(9)))
            await until(lambda: STREAM in fake.calls)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.get_running_loop().run_in_executor(None, fake.cancelled.wait, 30)

    asyncio.run(ask())


@both
@pytest.mark.parametrize("channels", [1, 2])
def test_a_failure_cancels_the_other_calls(fake: FakeServer, asynchronous: bool, channels: int) -> None:  # noqa: F811
    """Of which the server has answered none."""

    def answer(requests: Any, context: Any) -> Iterator[bytes]:
        when_ended(context, fake.cancelled.set)
        for request in requests:
            if id_of(request) == 3:
                yield attention_pb2.StreamAttentionResponse(id=3, code=5, message="no such model").SerializeToString()
        fake.hang(b"", context)

    fake.handlers[STREAM] = answer
    start = time.monotonic()

    async def ask() -> None:
        async with attnd.AsyncClient(fake.target, channels=channels) as client:
            with pytest.raises(attnd.NotFound):
                await client.attend_many(requests_of(6))
            assert await asyncio.get_running_loop().run_in_executor(None, fake.cancelled.wait, 30)

    if asynchronous:
        asyncio.run(ask())
    else:
        with attnd.Client(fake.target, channels=channels) as client:
            with pytest.raises(attnd.NotFound):
                client.attend_many(requests_of(6))
            assert fake.cancelled.wait(30)
    assert time.monotonic() - start < 10


@both
@pytest.mark.parametrize(("channels", "queries"), [(1, 4), (3, 4), (1, 1500)])
def test_a_server_without_streams(fake: FakeServer, asynchronous: bool, channels: int, queries: int) -> None:  # noqa: F811
    """Calls go each by itself, and nothing is repeated for that."""
    del fake.handlers[STREAM]

    def compute(request: bytes, context: Any) -> bytes:
        if attention_pb2.ComputeAttentionRequest.FromString(request).model == "nobody":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return answer_compute(request, context)

    fake.handlers[COMPUTE] = compute
    requests = requests_of(20, queries)
    requests[3].q = None
    requests[5].model = "nobody"
    names = ["ndarray"] * 3 + ["InvalidArgument", "ndarray", "NotFound"] + ["ndarray"] * 14

    async def ask() -> None:
        async with attnd.AsyncClient(fake.target, retry=None, channels=channels) as client:
            for _ in range(2):
                results = await client.attend_many(iter(requests), return_errors=True)
                assert [type(result).__name__ for result in results] == names
                streams.append(fake.calls.count(STREAM))
            with pytest.raises(attnd.NotFound):
                await client.attend_many(requests[5:])

    streams: list[int] = []
    if asynchronous:
        asyncio.run(ask())
    else:
        with attnd.Client(fake.target, retry=None, channels=channels) as client:
            for _ in range(2):
                results = client.attend_many(iter(requests), return_errors=True)
                assert [type(result).__name__ for result in results] == names
                streams.append(fake.calls.count(STREAM))
            with pytest.raises(attnd.NotFound):
                client.attend_many(requests[5:])
    assert streams[0] >= 1
    assert fake.calls.count(STREAM) == streams[0]  # the client has learnt it


def test_closing_ends_the_look_for_the_method(fake: FakeServer) -> None:  # noqa: F811
    """What the asyncio client asks after a stream that broke before any answer came."""
    fake.handlers[STREAM] = hang(fake)

    async def ask() -> None:
        client = attnd.AsyncClient(fake.target)
        await client.server_info()
        look = client._core.io._check_method(_stream.METHOD, Deadline(60), ())  # type: ignore[attr-defined]
        task = asyncio.ensure_future(look)
        await until(lambda: STREAM in fake.calls)
        await client.close()
        with pytest.raises(attnd.Cancelled, match="closed"):
            await task

    asyncio.run(ask())


@both
def test_a_call_that_is_unimplemented_is_no_missing_method(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    def answer(requests: Any, context: Any) -> Iterator[bytes]:
        for request in requests:
            number = id_of(request)
            unknown = attention_pb2.StreamAttentionResponse(id=number, code=12, message="no such dtype")
            yield unknown.SerializeToString() if number == 0 else answer_piece(request)

    fake.handlers[STREAM] = answer
    results = attend_many(fake.target, asynchronous, requests_of(3))
    assert [type(result).__name__ for result in results] == ["Unimplemented", "ndarray", "ndarray"]
    with attnd.Client(fake.target) as client, pytest.raises(attnd.Unimplemented, match="no such dtype"):
        client.attend_many(requests_of(3))
    assert fake.calls.count(COMPUTE) == 0


@both
def test_a_lone_large_call_goes_in_pieces(fake: FakeServer, asynchronous: bool) -> None:  # noqa: F811
    (result,) = attend_many(fake.target, asynchronous, iter(requests_of(1, 1024)))
    assert result.shape == (1, 8, 1024, 64)
    assert fake.calls.count(COMPUTE) == 8
    fake.handlers[COMPUTE] = refuse(grpc.StatusCode.NOT_FOUND, "no such model", times=100)
    (error,) = attend_many(fake.target, asynchronous, iter(requests_of(1, 1024)))
    assert isinstance(error, attnd.NotFound)
    assert attend_many(fake.target, asynchronous, iter(())) == []


def test_what_is_no_request(server: Server) -> None:
    with attnd.Client(server.tcp) as client:
        with pytest.raises(attnd.InvalidArgument) as caught:
            client.attend_many(3)  # type: ignore[arg-type]
        assert caught.value.field == "requests"
        for many in (client.attend_many, client.compute_many):
            with pytest.raises(attnd.InvalidArgument) as caught:
                many([tensors()])  # type: ignore[list-item]
            assert caught.value.field == "request"
