"""The regions that are registered: which answer belongs to what was asked, and what stays of each way out."""

from __future__ import annotations

import os
import pathlib
import select
import socket
import struct
from typing import Any, Callable, Dict, Iterator, List

import pytest

from attnd import _regions
from attnd._mapping import HUGE_PAGE
from attnd._regions import RegionKeeper
from attnd._shm import SharedMemory
from waits import in_thread, wait_for

from .fake_server import MAGIC, FakeServer, Times


class Peer:
    """A server of one connection, which the test plays step by step."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen(8)
        self._listener.settimeout(20)
        self.fds: List[int] = []

    def accept(self) -> None:
        self.connection = self._listener.accept()[0]
        self.connection.settimeout(20)

    def hear(self) -> Any:
        """Operation and handle of the next request."""
        data, fds, _, _ = socket.recv_fds(self.connection, 4096, 4)
        self.fds += fds
        _, _, operation, _, handle = struct.unpack("<QIIQ16s", data)
        return operation, handle

    def hears_nothing(self) -> bool:
        return not select.select([self.connection], [], [], 0.02)[0]

    def say(self, code: int, handle: bytes) -> None:
        self.connection.send(struct.pack("<QIi16s224s", MAGIC, 1, code, handle, b""))

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self._listener.close()
        self.connection.close()


@pytest.fixture
def peer(tmp_path: pathlib.Path) -> Iterator[Peer]:
    found = Peer(str(tmp_path / "peer"))
    yield found
    found.close()


@pytest.fixture
def played(peer: Peer, tmp_path: pathlib.Path) -> Iterator[SharedMemory]:
    """Its server is the peer."""
    memory = SharedMemory(RegionKeeper(str(tmp_path / "peer")))
    yield memory
    memory.close()


REGISTER, RELEASE = 1, 2


def test_answers_to_releases_are_not_taken_for_a_registration(played: SharedMemory, peer: Peer) -> None:
    """They come in the order of the requests, and may all come late."""
    made = [played.allocate(4096) for _ in range(4)]
    for i, pair in enumerate(made):
        asked = in_thread(lambda: played.keeper.register(pair[1]))  # noqa: B023
        if i == 0:
            peer.accept()
        assert peer.hear()[0] == REGISTER
        peer.say(0, bytes([i + 1]) * 16)
        assert asked()
    assert [region.handle for _, region in made] == [bytes([i + 1]) * 16 for i in range(4)]
    last = made.pop()
    made.clear()  # three releases, not answered yet
    assert sorted(peer.hear() for _ in range(3)) == [(RELEASE, bytes([i + 1]) * 16) for i in range(3)]
    _array, new = played.allocate(4096)
    asked = in_thread(lambda: played.keeper.register(new))
    assert peer.hear()[0] == REGISTER
    for i in range(3):
        peer.say(0, bytes(16))
        assert asked.is_under_way(), f"answer {i} to a release is taken for the registration's"
    peer.say(0, b"n" * 16)
    assert asked()
    assert new.handle == b"n" * 16
    assert last[1].handle == bytes([4]) * 16
    assert played.keeper._unanswered == 0


def test_a_region_is_released_once_and_its_handle_is_gone(played: SharedMemory, peer: Peer) -> None:
    _array, region = played.allocate(4096)
    asked = in_thread(lambda: played.keeper.register(region))
    peer.accept()
    assert peer.hear()[0] == REGISTER
    peer.say(0, b"h" * 16)
    assert asked()
    assert played.keeper.register(region)  # it is known: nobody is asked
    assert peer.hears_nothing()
    played.keeper.release(region)
    assert region.handle is None
    assert peer.hear() == (RELEASE, b"h" * 16)
    played.keeper.release(region)
    assert peer.hears_nothing()
    assert region not in played.keeper._known


def garbage(peer: Peer) -> None:
    peer.connection.send(b"no answer")


def another_magic(peer: Peer) -> None:
    peer.connection.send(struct.pack("<QIi16s224s", MAGIC + 1, 1, 0, b"h" * 16, b""))


def an_end(peer: Peer) -> None:
    peer.connection.shutdown(socket.SHUT_RDWR)


def too_long(peer: Peer) -> None:
    peer.connection.send(struct.pack("<QIi16s224s", MAGIC, 1, 0, b"h" * 16, b"") + b"x")


LOSSES: Dict[str, Callable[[Peer], None]] = {loss.__name__: loss for loss in (garbage, another_magic, an_end, too_long)}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_connection_takes_all_handles_along(played: SharedMemory, peer: Peer, loss: str) -> None:
    (_first, known), (_second, region) = played.allocate(4096), played.allocate(4096)
    asked = in_thread(lambda: played.keeper.register(known))
    peer.accept()
    peer.hear()
    peer.say(0, b"k" * 16)
    assert asked()
    generation = played.keeper.generation
    asked = in_thread(lambda: played.keeper.register(region))
    peer.hear()
    LOSSES[loss](peer)
    assert not asked()
    assert (known.handle, region.handle) == (None, None)
    assert played.keeper.generation == generation + 1
    assert not played.keeper.offered
    assert not played.keeper.worth_trying()  # for a moment
    played.keeper._rest_until = 0.0
    asked = in_thread(lambda: played.keeper.register(known))
    peer.connection.close()
    peer.accept()
    assert peer.hear()[0] == REGISTER
    peer.say(0, b"K" * 16)
    assert asked()
    assert known.handle == b"K" * 16


def test_an_interrupted_registration_drops_the_connection(
    memory: SharedMemory, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer may still come, and is none to what is asked next."""

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    _array, region = memory.allocate(4096)
    with monkeypatch.context() as patch:
        patch.setattr(_regions, "_receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            memory.keeper.register(region)
    assert not memory.keeper.offered
    assert not memory.keeper._lock.locked()
    assert memory.keeper.register(region)
    assert list(fake.regions) == [region.handle]


def test_a_caller_does_not_wait_for_another_for_longer_than_it_may(memory: SharedMemory) -> None:
    _array, region = memory.allocate(4096)
    with memory.keeper._lock:
        assert not in_thread(lambda: memory.keeper.register(region, 0.05))()
    assert memory.keeper.register(region)


@pytest.mark.parametrize(("timeout", "rest"), [(0.05, _regions.REST), (_regions.PATIENCE, _regions.REST_AFTER_SILENCE)])
def test_how_long_a_silent_server_is_left_alone(
    memory: SharedMemory, fake: FakeServer, monkeypatch: pytest.MonkeyPatch, timeout: float, rest: float
) -> None:
    times = Times()
    monkeypatch.setattr(_regions, "time", times)
    monkeypatch.setattr(_regions, "_wait", lambda *_: False)
    _array, region = memory.allocate(4096)
    assert not memory.keeper.register(region, timeout)
    for left, tried in ((rest - 0.01, False), (rest, True)):
        times.now = 1000.0 + left
        assert memory.keeper.worth_trying() == tried


def test_a_refused_region_is_asked_for_again_after_a_rest(
    memory: SharedMemory, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times()
    monkeypatch.setattr(_regions, "time", times)
    fake.registers = 8
    _array, region = memory.allocate(4096)
    assert not memory.keeper.register(region)
    fake.registers = 0
    times.now += _regions.REST - 0.01
    assert not memory.keeper.register(region)
    times.now += 0.01
    assert memory.keeper.register(region)
    assert len(fake.sizes) == 2


def test_what_a_forgotten_connection_had_to_release_is_forgotten(memory: SharedMemory, fake: FakeServer) -> None:
    made = [memory.allocate(4096) for _ in range(3)]
    assert all(memory.keeper.register(region) for _, region in made)
    with memory.keeper._lock:
        made.clear()  # it cannot send now
        assert len(memory.keeper._releases) == 3
        memory.keeper._drop(0.0)
    assert not memory.keeper._releases
    assert memory.keeper._unanswered == 0
    wait_for(lambda: not fake.regions)


# Sizes of small arrays, with which a common region of 2 MiB is filled to exactly this many bytes.
@pytest.mark.parametrize("left", [64, 128, 192])
@pytest.mark.parametrize("more", [-64, 0, 1, 64])
def test_the_end_of_the_common_region(memory: SharedMemory, left: int, more: int) -> None:
    piece = 256 << 10
    arrays = [memory.empty(piece) for _ in range(7)] + [memory.empty(piece - left)]
    assert memory.count == 1
    last = memory.empty(max(1, left + more))
    assert last.nbytes == max(1, left + more)
    assert memory.count == (2 if more > 0 else 1)
    last[:] = 7
    assert not any(array.any() for array in arrays)
    assert last.ctypes.data % 64 == 0
    place = memory.place(last.ctypes.data, last.nbytes)
    assert place is not None
    assert place[1] + last.nbytes <= HUGE_PAGE


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, (256 << 10) - 1, 256 << 10, (256 << 10) + 1])
def test_small_arrays_lie_beside_each_other(memory: SharedMemory, size: int) -> None:
    arrays = [memory.empty(size) for _ in range(5)]
    for value, array in enumerate(arrays):
        assert array.ctypes.data % 64 == 0
        array[:] = value + 1
    assert [set(array.tolist()) for array in arrays] == [{1}, {2}, {3}, {4}, {5}]
    assert memory.count == (5 if size > 256 << 10 else 1)


@pytest.mark.parametrize("size", [4096, 10_000])
def test_what_lies_in_a_region(memory: SharedMemory, size: int) -> None:
    """All of it, up to the last byte: not what begins where it ends, and not what goes beyond."""
    array, region = memory.allocate(size)
    begin = array.ctypes.data
    for offset, length in ((0, 1), (0, size), (1, size - 1), (size - 1, 1), (size, 0)):
        assert memory.place(begin + offset, length) == (region, offset)
    for offset, length in ((0, size + 1), (1, size), (size - 1, 2), (size, 1), (size + 1, 0), (-1, 1), (-1, size)):
        assert memory.place(begin + offset, length) is None


def test_after_close_small_arrays_hold_no_region(memory: SharedMemory) -> None:
    array = memory.empty(64)
    memory.close()
    assert memory._pieces is None
    del array
    assert memory.count == 0
    later = memory.empty(64)
    assert memory._pieces is None
    del later
    assert memory.count == 0


def test_freed_memory_closes_its_descriptor(memory: SharedMemory) -> None:
    array, region = memory.allocate(4096)
    fd = region.fd
    os.fstat(fd)
    del array
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert memory.count == 0
