"""When a session's connection is begun, and when the server is left alone."""

from __future__ import annotations

import socket
from typing import Any, Iterator, List

import pytest

from attnd import _regions, _session_door
from attnd._local import NO_KEEPALIVE
from attnd._local_session import LocalSession
from attnd._operation import run
from attnd._session_door import SessionDoor

from .fake_server import Times


class Session(LocalSession):
    """Its server offers sessions or does not."""

    offers = True
    asked: List[float]

    def greet(self, user_agent: str, seconds: float) -> bool:
        Session.asked.append(seconds)
        return Session.offers


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    found = Times()
    monkeypatch.setattr(_session_door, "time", found)
    return found


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[List[socket.socket]]:
    """The servers' ends of the connections."""
    found: List[socket.socket] = []

    def connect(path: str) -> socket.socket:
        mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        found.append(other)
        return mine

    monkeypatch.setattr(_session_door, "connect", connect)
    Session.offers, Session.asked = True, []
    yield found
    for peer in found:
        peer.close()


@pytest.fixture
def door() -> SessionDoor:
    return SessionDoor("path", "test/1", NO_KEEPALIVE, Session)


def begin(door: SessionDoor, times: Times, seconds: float = 100.0) -> Any:
    return run(door.begin(times.now + seconds))


def ended(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return not peer.recv(1)
    except BlockingIOError:
        return False


@pytest.mark.parametrize(
    ("seconds", "rest"),
    [(0.5, _regions.REST), (_regions.PATIENCE, _regions.REST_AFTER_SILENCE), (100.0, _regions.REST_AFTER_SILENCE)],
)
def test_how_long_a_server_without_sessions_is_left_alone(
    door: SessionDoor, times: Times, peers: Any, seconds: float, rest: float
) -> None:
    Session.offers = False
    assert begin(door, times, seconds) is None
    assert Session.asked == [min(seconds, _regions.PATIENCE)]
    Session.offers = True
    times.now = 1000.0 + rest - 0.01
    assert begin(door, times) is None
    assert len(peers) == 1
    times.now = 1000.0 + rest
    session = begin(door, times)
    assert session is not None
    session.close_copy()


def test_a_server_that_is_not_there_is_asked_for_again(
    door: SessionDoor, times: Times, peers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_session_door, "connect", lambda path: None)
        assert begin(door, times) is None
    session = begin(door, times)
    assert session is not None
    session.close_copy()


def test_closing_ends_every_session(door: SessionDoor, times: Times, peers: Any) -> None:
    sessions = [begin(door, times) for _ in range(3)]
    door.close()
    assert all(ended(peer) for peer in peers)
    assert begin(door, times) is None
    assert len(peers) == 3
    for session in sessions:
        session.close_copy()


def test_a_session_that_begins_while_the_client_is_closed_is_ended(door: SessionDoor, times: Times, peers: Any) -> None:
    class Closing(Session):
        """Whose client is closed after its door has been found open."""

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            door.close()

    door._kind = Closing
    session = begin(door, times)
    assert ended(peers[0])
    if session is not None:
        session.close_copy()


def test_a_child_closes_its_copies(door: SessionDoor, times: Times, peers: Any) -> None:
    sessions = [begin(door, times) for _ in range(2)]
    door.abandon()
    assert all(session._socket.fileno() == -1 for session in sessions)
