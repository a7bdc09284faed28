"""Calls over the local socket, blocking, against a server that does as the test asks."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from typing import Any, Iterator, List, Optional

import numpy as np
import pytest

from attnd import _local, _local_wire
from attnd._local import Keepalive, LocalDoor
from attnd.errors import Cancelled, DeadlineExceeded, Internal, Unavailable
from attnd.v1 import attention_pb2, local_pb2
from waits import join_all

from .fake_server import FakeServer, Losses, wait_for

Q = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4)
HEADER = attention_pb2.ComputeAttentionRequest(
    model="m", batch=1, heads=1, kv_heads=1, query_length=2, key_length=2, head_dim=4, value_head_dim=4, dtype=1
).SerializeToString()
SENT = [(100, Q), (101, Q + 1), (102, Q + 2)]


@pytest.fixture
def door(fake: FakeServer, losses: Losses) -> Iterator[LocalDoor]:
    door = LocalDoor(fake.path, "test/1", losses)
    yield door
    door.close()


def call(door: LocalDoor, timeout: float = 10.0, sent: Any = SENT) -> Optional[local_pb2.LocalAnswer]:
    size = sum(array.nbytes for _, array in sent)
    return door.call(HEADER, b"", sent, size, 32, timeout, time.monotonic() + timeout)


def test_a_call_is_the_message_that_protobuf_would_write(door: LocalDoor, fake: FakeServer) -> None:
    answer = call(door, 1.5)
    assert answer is not None
    assert answer.result.output == (Q + 2).tobytes()
    expected = local_pb2.LocalCall(id=1, request=attention_pb2.ComputeAttentionRequest.FromString(HEADER))
    expected.timeout.FromMilliseconds(1500)
    expected.request.q, expected.request.k, expected.request.v = (array.tobytes() for _, array in SENT)
    assert fake.calls == [expected]


@pytest.mark.parametrize("timeout", [math.inf, 1e-9, 0.5, 1.0, 12345.678, 1e10, 1e300])
@pytest.mark.parametrize("call_id", [1, 127, 128, 1 << 40])
def test_datagrams_parse(timeout: float, call_id: int) -> None:
    header = HEADER * 100  # repeated fields: the last one counts
    data = b"".join(_local_wire.call(call_id, timeout, header, b"", SENT))
    parsed = local_pb2.LocalRequest.FromString(data).call
    assert parsed.id == call_id
    assert parsed.HasField("timeout") == (timeout < 1e300)
    if timeout < 1e300:
        seconds = parsed.timeout.seconds + parsed.timeout.nanos / 1e9
        assert timeout <= seconds <= timeout * (1 + 1e-9) + 1e-9
    assert parsed.request.v == (Q + 2).tobytes()
    assert local_pb2.LocalRequest.FromString(_local_wire.cancel(call_id)).cancel.id == call_id


def test_views_with_gaps_are_sent_as_they_look(door: LocalDoor, fake: FakeServer) -> None:
    gaps = np.arange(16, dtype=np.float32).reshape(1, 1, 2, 8)[..., ::2]
    answer = call(door, sent=[(100, gaps), (101, gaps), (102, gaps)])
    assert answer is not None
    assert answer.result.output == gaps.tobytes()


def test_one_connection_serves_calls_that_follow_each_other(door: LocalDoor, fake: FakeServer) -> None:
    for _ in range(300):
        assert call(door) is not None
    assert len(fake.connections) == 1


def test_threads_have_connections_of_their_own_up_to_a_limit(
    door: LocalDoor, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_local, "MAX_CONNECTIONS", 3)
    together: List[int] = []
    most: List[int] = []

    def slow(server: FakeServer, request: local_pb2.LocalCall) -> local_pb2.LocalAnswer:
        together.append(1)
        most.append(len(together))
        time.sleep(0.01)
        together.pop()
        return server.result(request)

    fake.on_call = slow
    results: List[Any] = []
    threads = [threading.Thread(target=lambda: results.append(call(door))) for _ in range(16)]
    for thread in threads:
        thread.start()
    join_all(threads)
    assert [result.result.output for result in results] == [(Q + 2).tobytes()] * 16
    assert max(most) == 3
    assert len(fake.connections) == 3


def test_a_thread_that_gets_no_connection_ends_at_its_deadline(
    door: LocalDoor, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_local, "MAX_CONNECTIONS", 1)
    begun, go = threading.Event(), threading.Event()

    def wait(server: FakeServer, request: local_pb2.LocalCall) -> local_pb2.LocalAnswer:
        begun.set()
        go.wait(10)
        return server.result(request)

    fake.on_call = wait
    first = threading.Thread(target=call, args=(door,))
    first.start()
    begun.wait(10)
    with pytest.raises(DeadlineExceeded, match="no connection was free"):
        call(door, 0.05)
    go.set()
    join_all([first])


def test_the_caller_stops_waiting_at_the_deadline(door: LocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: None
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="not answered within"):
        call(door, 0.1)
    assert 0.1 <= time.monotonic() - start < 2
    # A late answer must not meet the next call: the connection is closed, which cancels the call.
    fake.on_call = lambda server, request: server.result(request)
    assert call(door) is not None
    assert len(fake.connections) == 2


def test_a_deadline_holds_while_signals_arrive(door: LocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: None
    old = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            call(door, 0.2)
        assert time.monotonic() - start < 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_keyboard_interrupt_cancels_the_call(door: LocalDoor, fake: FakeServer) -> None:
    def interrupt(server: FakeServer, request: local_pb2.LocalCall) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    fake.on_call = interrupt
    with pytest.raises(KeyboardInterrupt):
        call(door)
    fake.on_call = lambda server, request: server.result(request)
    assert call(door) is not None
    assert len(fake.connections) == 2


def test_a_server_that_ends_during_the_call(door: LocalDoor, fake: FakeServer, losses: Losses) -> None:
    stopper: List[threading.Thread] = []

    def end(server: FakeServer, request: local_pb2.LocalCall) -> None:
        stopper.append(threading.Thread(target=server.restart))
        stopper[0].start()

    fake.on_call = end
    with pytest.raises(Unavailable, match="lost before the answer"):
        call(door)
    join_all([stopper[0]])
    assert losses.count == 1
    fake.on_call = lambda server, request: server.result(request)
    assert call(door) is not None


def test_idle_connections_of_a_server_before_are_not_noticed_by_callers(door: LocalDoor, fake: FakeServer) -> None:
    assert call(door) is not None
    fake.restart()
    assert call(door) is not None
    assert len(fake.connections) == 1


def test_a_silent_server(door: LocalDoor, fake: FakeServer) -> None:
    fake.silent = True
    start = time.monotonic()
    assert not door.offered(start + 0.05)
    assert time.monotonic() - start < 0.5
    assert not door.worth_trying()


SOON = Keepalive(0.1, 0.3)


@pytest.mark.parametrize("timeout", [1000.0, math.inf])
def test_a_server_without_a_sign_of_life_is_given_up(fake: FakeServer, losses: Losses, timeout: float) -> None:
    door = LocalDoor(fake.path, "test/1", losses, SOON)
    assert call(door) is not None
    # Alive, it may take its time: many times as long as it may be silent.
    slow = threading.Thread(target=lambda: (wait_for(lambda: fake.signs >= 6), release.set()))
    release = threading.Event()
    slow.start()

    def late(server: FakeServer, request: local_pb2.LocalCall) -> None:
        threading.Thread(target=lambda: (release.wait(30), server.answer(request))).start()

    fake.on_call = late
    answer = call(door, timeout)
    assert answer is not None and answer.result.output == (Q + 2).tobytes()
    join_all([slow])
    # The sign that was asked for last may come after the answer, and is no answer to the next call.
    fake.on_call = lambda server, request: server.result(request)
    assert call(door, timeout) is not None
    fake.silent = True
    with pytest.raises(Unavailable, match="no sign of life"):
        call(door, timeout)
    assert losses.count == 1
    assert not door.worth_trying()
    assert call(door) is None
    fake.silent = False
    door.close()


def test_a_deadline_comes_before_the_end_of_patience(fake: FakeServer, losses: Losses) -> None:
    door = LocalDoor(fake.path, "test/1", losses, Keepalive(0.05, 100.0))
    assert call(door) is not None
    fake.silent = True
    with pytest.raises(DeadlineExceeded, match="not answered"):
        call(door, 0.2)
    door.close()


def test_nobody_listens(door: LocalDoor, fake: FakeServer) -> None:
    assert door.worth_trying()
    fake.stop()
    try:
        assert not door.offered(math.inf)
        assert call(door) is None
        assert not door.worth_trying()
    finally:
        os.unlink(fake.path)
        fake.start()


def test_no_permission(fake: FakeServer, losses: Losses, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    door = LocalDoor(fake.path, "test/1", losses)
    with monkeypatch.context() as patch:
        patch.setattr("socket.socket.connect", refuse)
        assert not door.offered(math.inf)
    assert not door.worth_trying()


@pytest.mark.parametrize(
    "welcome",
    [
        None,
        local_pb2.LocalWelcome(code=12, message="no local calls", version=1),
        local_pb2.LocalWelcome(version=2, max_message_bytes=1 << 16, max_calls=4),
    ],
)
def test_a_server_without_local_calls_is_left_alone(
    door: LocalDoor, fake: FakeServer, welcome: Optional[local_pb2.LocalWelcome]
) -> None:
    fake.on_hello = lambda: welcome
    assert not door.offered(math.inf)
    assert call(door) is None
    assert not door.worth_trying()
    assert len(fake.connections) == 1


def test_too_large_a_call_is_not_sent(door: LocalDoor, fake: FakeServer) -> None:
    large = np.zeros((1, 1, 1 << 14, 4), np.float32)
    assert call(door, sent=[(100, large), (101, large), (102, large)]) is None
    assert door.call(HEADER, b"", SENT, 96, 1 << 16, 10.0, math.inf) is None  # the answer would be
    assert fake.calls == []
    assert call(door) is not None
    assert len(fake.connections) == 1


def test_what_the_socket_does_not_take_is_not_sent(door: LocalDoor, fake: FakeServer) -> None:
    fake.on_hello = lambda: local_pb2.LocalWelcome(version=1, max_message_bytes=1 << 24, max_calls=4)
    large = np.zeros((1, 1, 1 << 18, 4), np.float32)
    assert call(door, sent=[(100, large), (101, large), (102, large)]) is None
    assert call(door) is not None


@pytest.mark.parametrize("data", [b"\xff\xff\xff", local_pb2.LocalReply(answer={"id": 99}).SerializeToString()])
def test_an_answer_that_is_none(door: LocalDoor, fake: FakeServer, data: bytes) -> None:
    def answer(server: FakeServer, request: local_pb2.LocalCall) -> None:
        server.connections[-1].send(data)

    fake.on_call = answer
    with pytest.raises(Internal):
        call(door)
    fake.on_call = lambda server, request: server.result(request)
    assert call(door) is not None


def test_an_answer_to_the_call_before_is_not_taken_for_this_one(door: LocalDoor, fake: FakeServer) -> None:
    assert call(door) is not None

    def answer(server: FakeServer, request: local_pb2.LocalCall) -> local_pb2.LocalAnswer:
        late = server.result(request)
        late.id = server.calls[0].id
        return late

    fake.on_call = answer
    with pytest.raises(Internal, match="not under way"):
        call(door)


def test_close_ends_calls(door: LocalDoor, fake: FakeServer) -> None:
    begun = threading.Event()
    errors: List[BaseException] = []

    def wait(server: FakeServer, request: local_pb2.LocalCall) -> None:
        begun.set()

    def run() -> None:
        try:
            call(door)
        except BaseException as error:
            errors.append(error)

    fake.on_call = wait
    thread = threading.Thread(target=run)
    thread.start()
    begun.wait(10)
    door.close()
    door.close()
    thread.join(10)
    assert [type(error) for error in errors] == [Cancelled]
    assert not door.worth_trying()
    assert call(door) is None
    wait_for(lambda: all(connection.fileno() < 0 or _ended(connection) for connection in fake.connections))


def _ended(connection: Any) -> bool:
    try:
        return not connection.recv(1, 0x40)
    except BlockingIOError:
        return False
    except OSError:
        return True
