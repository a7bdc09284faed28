"""However a call over the local socket ends, the door has afterwards what it had before: connections, turns and ids."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import pytest

from attnd import _local, _regions
from attnd._local import Connection, Keepalive, LocalDoor, Welcome
from attnd.errors import Cancelled, DeadlineExceeded, Internal, Unavailable
from attnd.v1 import local_pb2
from waits import SECONDS, in_thread, wait_for

from .fake_server import MAGIC, FakeServer, Losses, Times
from .test_door import HEADER, SENT, Q, call

MOST = 2
LARGE = [(100 + i, np.zeros((1, 1, 1 << 14, 4), np.float32)) for i in range(3)]


@pytest.fixture
def door(fake: FakeServer, losses: Losses, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalDoor]:
    """Has MOST connections."""
    monkeypatch.setattr(_local, "MAX_CONNECTIONS", MOST)
    door = LocalDoor(fake.path, "test/1", losses, Keepalive(0.2, 0.2))
    yield door
    door.close()


def answered(door: LocalDoor, fake: FakeServer) -> None:
    assert call(door) is not None


def refused(door: LocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: local_pb2.LocalAnswer(id=request.id, code=5, message="no such model")
    answer = call(door)
    assert answer is not None and answer.code == 5


def not_answered_in_time(door: LocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: None
    with pytest.raises(DeadlineExceeded):
        call(door, 0.05)


def too_late_before_it_is_sent(door: LocalDoor, fake: FakeServer) -> None:
    with pytest.raises(DeadlineExceeded):
        door.call(HEADER, b"", SENT, 96, 32, 1.0, time.monotonic() - 1)


def silence(door: LocalDoor, fake: FakeServer) -> None:
    assert call(door) is not None
    fake.silent = True
    with pytest.raises(Unavailable, match="no sign of life"):
        call(door, math.inf)
    fake.silent = False
    door._rest_until = 0.0


def connection_lost(door: LocalDoor, fake: FakeServer) -> None:
    def lose(server: FakeServer, request: local_pb2.LocalCall) -> None:
        server.connections[-1].shutdown(socket.SHUT_RDWR)

    fake.on_call = lose
    with pytest.raises(Unavailable):
        call(door)


def connection_lost_before(door: LocalDoor, fake: FakeServer) -> None:
    """Nobody notices: the call uses another one."""
    for connection in fake.connections:
        connection.shutdown(socket.SHUT_RDWR)
    assert call(door) is not None


def too_large_a_call(door: LocalDoor, fake: FakeServer) -> None:
    assert call(door, sent=LARGE) is None


def too_large_an_answer(door: LocalDoor, fake: FakeServer) -> None:
    assert door.call(HEADER, b"", SENT, 96, 1 << 16, 10.0, time.monotonic() + 10) is None


def garbage(door: LocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: server.connections[-1].send(b"\xff\xff") and None
    with pytest.raises(Internal):
        call(door)


def an_answer_to_another_call(door: LocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: local_pb2.LocalAnswer(id=request.id + 1)
    with pytest.raises(Internal):
        call(door)


def interrupted(door: LocalDoor, fake: FakeServer) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(Connection, "call", interrupt)
        with pytest.raises(KeyboardInterrupt):
            call(door)


def interrupted_while_it_connects(door: LocalDoor, fake: FakeServer) -> None:
    door._close_idle()

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_local, "greet", interrupt)
        with pytest.raises(KeyboardInterrupt):
            call(door)


def no_welcome(door: LocalDoor, fake: FakeServer) -> None:
    door._close_idle()
    welcome, fake.on_hello = fake.on_hello, lambda: None
    assert call(door) is None
    fake.on_hello = welcome
    door._rest_until = 0.0


def nobody_listens(door: LocalDoor, fake: FakeServer) -> None:
    door._close_idle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_local, "connect", lambda path: None)
        assert call(door) is None
    door._rest_until = 0.0


def no_memory_for_the_connection(door: LocalDoor, fake: FakeServer) -> None:
    door._close_idle()

    def none(*_: Any) -> Any:
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_local, "Connection", none)
        with pytest.raises(MemoryError):
            call(door)


WAYS: Dict[str, Callable[[LocalDoor, FakeServer], None]] = {
    way.__name__: way
    for way in (
        answered,
        refused,
        not_answered_in_time,
        too_late_before_it_is_sent,
        silence,
        connection_lost,
        connection_lost_before,
        too_large_a_call,
        too_large_an_answer,
        garbage,
        an_answer_to_another_call,
        interrupted,
        interrupted_while_it_connects,
        no_welcome,
        nobody_listens,
        no_memory_for_the_connection,
    )
}


def check_all_is_there(door: LocalDoor, fake: FakeServer) -> None:
    """Nothing is counted that is over, and MOST calls are possible at once, and one more after the first of them."""
    assert (door._waiting, door._making) == (0, 0)
    assert set(door._idle) == set(door._made)
    begun, go = threading.Semaphore(0), threading.Event()

    def hold(server: FakeServer, request: local_pb2.LocalCall) -> local_pb2.LocalAnswer:
        begun.release()
        assert go.wait(SECONDS)
        return server.result(request)

    fake.on_call = hold
    # Signs of life would be needed while a call is held.
    door._keepalive = _local.NO_KEEPALIVE
    door._close_idle()
    calls = [in_thread(lambda: call(door, SECONDS)) for _ in range(MOST)]
    for _ in calls:
        assert begun.acquire(timeout=SECONDS), "a connection is missing"
    waits = in_thread(lambda: call(door, SECONDS))
    wait_for(lambda: door._waiting == 1)
    assert len(door._made) == MOST
    go.set()
    for one in (*calls, waits):
        answer = one()
        assert answer is not None and answer.result.output == (Q + 2).tobytes()
    assert len(door._made) == len(door._idle) == MOST


@pytest.mark.parametrize("times", [1, MOST + 1])
@pytest.mark.parametrize("way", WAYS)
def test_ways_out(door: LocalDoor, fake: FakeServer, way: str, times: int) -> None:
    assert call(door) is not None
    for _ in range(times):
        WAYS[way](door, fake)
    fake.on_call = lambda server, request: server.result(request)
    check_all_is_there(door, fake)


def end(door: LocalDoor) -> None:
    """Closes also what a test has taken."""
    for connection in list(door._made):
        door._discard(connection)


@pytest.mark.parametrize("way", ["put", "discard", "close"])
def test_a_waiting_thread_is_woken(door: LocalDoor, fake: FakeServer, way: str) -> None:
    """By a connection that is free, by room for another, or by the end; long before its own deadline."""
    fake.on_call = lambda server, request: None
    taken = [door._take(1.0) for _ in range(MOST)]
    waits = in_thread(lambda: door._take(10 * SECONDS))
    wait_for(lambda: door._waiting == 1)
    assert waits.is_under_way()
    first = taken[0]
    assert first is not None
    if way == "put":
        door._put(first)
        assert waits() is first
    elif way == "discard":
        door._discard(first)
        found = waits()
        assert found is not None
        assert found not in taken
    else:
        door.close()
        assert waits() is None
    assert door._waiting == 0
    end(door)


def test_each_of_several_waiting_threads_gets_its_turn(door: LocalDoor, fake: FakeServer) -> None:
    taken = [door._take(1.0) for _ in range(MOST)]
    waiting = [in_thread(lambda: door._take(SECONDS)) for _ in range(4)]
    wait_for(lambda: door._waiting == 4)
    for connection in taken:
        assert connection is not None
        door._put(connection)
    wait_for(lambda: sum(not one.is_under_way() for one in waiting) == MOST)
    for one in [one for one in waiting if not one.is_under_way()]:
        door._discard(one())
    assert len({one() for one in waiting}) == 4
    end(door)


@pytest.mark.parametrize(
    ("timeout", "rest"),
    [(_regions.PATIENCE / 20, _regions.REST), (_regions.PATIENCE, _regions.REST_AFTER_SILENCE)],
)
def test_how_long_a_silent_server_is_left_alone(
    door: LocalDoor, fake: FakeServer, monkeypatch: pytest.MonkeyPatch, timeout: float, rest: float
) -> None:
    """A caller's short timeout says little about the server."""
    times = Times()
    monkeypatch.setattr(_local, "time", times)
    asked: List[float] = []

    def silent(sock: socket.socket, user_agent: str, seconds: float) -> Optional[Welcome]:
        asked.append(seconds)
        raise socket.timeout

    monkeypatch.setattr(_local, "greet", silent)
    assert door._take(timeout) is None
    assert asked == [min(timeout, _regions.PATIENCE)]
    for left, tried in ((rest - 0.01, False), (rest, True)):
        times.now = 1000.0 + left
        assert door.worth_trying() == tried
        assert door._take(timeout) is None
        assert (len(asked) == 2) == tried


@pytest.mark.parametrize("ended", [ConnectionResetError(), OSError()])
def test_a_server_that_does_not_know_calls_is_left_alone_for_long(
    door: LocalDoor, monkeypatch: pytest.MonkeyPatch, ended: OSError
) -> None:
    times = Times()
    monkeypatch.setattr(_local, "time", times)

    def ends(*_: Any) -> Any:
        raise ended

    monkeypatch.setattr(_local, "greet", ends)
    assert door._take(0.01) is None
    assert door._rest_until == 1000.0 + _regions.REST_AFTER_SILENCE


@pytest.mark.parametrize("small", [100, 2000])
@pytest.mark.parametrize("side", ["sent", "answered", "both"])
@pytest.mark.parametrize("over", [0, 1])
def test_what_has_room_in_a_datagram(small: int, side: str, over: int) -> None:
    most = 1 << 16
    size = most - small - 1024 + over
    sizes: Tuple[int, int] = {"sent": (size, 0), "answered": (0, size), "both": (size, size)}[side]
    assert Welcome(most, 4).has_room(small, *sizes) == (over == 0)


def test_ids_of_calls_that_follow_each_other_differ(door: LocalDoor, fake: FakeServer) -> None:
    for _ in range(130):
        assert call(door) is not None
    ids = [request.id for request in fake.calls]
    assert all(one != other for one, other in zip(ids, ids[1:]))
    assert set(ids) == set(range(1, 128))


def test_a_client_that_is_closed_in_a_call_says_so_and_else_says_what_it_was(door: LocalDoor, fake: FakeServer) -> None:
    fake.on_call = lambda server, request: None
    result = in_thread(lambda: call(door, SECONDS))
    wait_for(lambda: bool(fake.calls))
    door.close()
    with pytest.raises(Cancelled):
        result()
    assert not door._made and not door._idle


def test_a_call_that_ends_after_close_leaves_no_connection(door: LocalDoor, fake: FakeServer) -> None:
    connection = door._take(1.0)
    assert connection is not None
    door.close()
    door._put(connection)
    assert not door._made and not door._idle
    assert connection._socket.fileno() == -1


def test_a_child_closes_its_copies(door: LocalDoor, fake: FakeServer) -> None:
    connections = [door._take(1.0) for _ in range(MOST)]
    numbers = [one._socket.fileno() for one in connections if one is not None]
    door.abandon()
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


@pytest.mark.parametrize(("pings", "late"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 1)])
def test_signs_of_life_that_come_late_are_no_answers(pings: int, late: int) -> None:
    """What answers the last pings of a call may come after its answer, in the next call."""
    mine, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(SECONDS)
    connection = Connection(mine, Welcome(1 << 16, 4), Keepalive(0.02, SECONDS))
    sign = struct.pack("<QIi16s224s", MAGIC, 1, 0, bytes(16), b"")

    def answer(call_id: int) -> bytes:
        return local_pb2.LocalReply(answer=local_pb2.LocalAnswer(id=call_id)).SerializeToString()

    def serve() -> None:
        first = local_pb2.LocalRequest.FromString(peer.recv(1 << 16)).call
        for i in range(pings):
            assert peer.recv(1 << 16) == _regions.SIGN_REQUEST
            if i < pings - late:
                peer.send(sign)
        peer.send(answer(first.id))
        second = local_pb2.LocalRequest.FromString(peer.recv(1 << 16)).call
        for _ in range(late):
            peer.send(sign)
        peer.send(answer(second.id))

    with peer, contextlib.closing(connection):
        served = in_thread(serve)
        for call_id in (1, 2):
            assert connection.call(HEADER, b"", SENT, math.inf, math.inf).id == call_id
        served()
        assert connection._signs == 0
