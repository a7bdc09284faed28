"""Memory that is shared: made, found, named, and gone with its last array."""

from __future__ import annotations

import gc
import os
import pathlib
import resource
import socket
import threading
import time
from typing import List

import numpy as np
import pytest

from attnd import _regions
from attnd._mapping import HUGE_PAGE
from attnd._regions import RegionKeeper
from attnd._shm import SharedMemory
from attnd._staging import Stager
from attnd.errors import ResourceExhausted
from waits import join_all

from .fake_server import FakeServer, descriptors, wait_for


def test_large_arrays_begin_on_huge_pages_and_are_zero(memory: SharedMemory) -> None:
    array = memory.empty(HUGE_PAGE + 5)
    assert array.ctypes.data % HUGE_PAGE == 0
    assert array.nbytes == HUGE_PAGE + 5
    assert not array.any()
    array[:] = 1  # every page can be written


def test_small_arrays_share_a_region(memory: SharedMemory) -> None:
    arrays = [memory.empty(size) for size in (1, 100, 4096, 256 << 10)]
    assert memory.count == 1
    assert all(array.ctypes.data % 64 == 0 for array in arrays)
    for value, array in enumerate(arrays):
        array[:] = value
    assert [set(array.tolist()) for array in arrays] == [{0}, {1}, {2}, {3}]


def test_a_full_region_of_small_arrays_is_followed_by_another(memory: SharedMemory) -> None:
    arrays = [memory.empty(256 << 10) for _ in range(9)]
    assert memory.count == 2
    assert len({array.ctypes.data for array in arrays}) == 9


@pytest.mark.parametrize(
    ("begin", "size", "found"), [(0, 1 << 20, True), (64, 64, True), (0, (1 << 20) + 1, False), (-1, 2, False)]
)
def test_places_are_found_by_address(memory: SharedMemory, begin: int, size: int, found: bool) -> None:
    arrays = [memory.allocate(1 << 20)[0] for _ in range(3)]
    for array in arrays:
        # Regions may lie side by side, but no tensor lies in two.
        place = memory.place(array.ctypes.data + begin, size)
        if found:
            assert place is not None
            assert (place[0].address, place[1]) == (array.ctypes.data, begin)
        else:
            assert place is None
    assert memory.place(np.empty(16).ctypes.data, 16) is None


def test_a_region_goes_with_its_last_view_here_and_at_the_server(memory: SharedMemory, fake: FakeServer) -> None:
    gc.collect()  # what tests before have left in cycles
    before = descriptors()
    array, region = memory.allocate(1 << 20)
    assert memory.keeper.register(region)
    view = array[5:].view(np.uint8)[::7]
    del array, region
    gc.collect()
    assert memory.count == 1
    assert len(fake.regions) == 1
    del view
    gc.collect()
    assert memory.count == 0
    wait_for(lambda: not fake.regions)
    assert [entry for entry in descriptors() if "memfd" in entry[1]] == [e for e in before if "memfd" in e[1]]


def test_many_releases_do_not_fill_the_socket(memory: SharedMemory, fake: FakeServer) -> None:
    for _ in range(20):
        made = [memory.allocate(4096) for _ in range(100)]
        assert all(memory.keeper.register(region) for _, region in made)
        del made
    wait_for(lambda: not fake.regions)


def test_memory_is_registered_again_with_a_new_server(memory: SharedMemory, fake: FakeServer) -> None:
    _array, region = memory.allocate(4096)
    assert memory.keeper.register(region)
    first = region.handle
    fake.restart()
    memory.keeper.check()
    assert region.handle is None
    assert memory.keeper.register(region)
    assert region.handle != first
    assert list(fake.regions) == [region.handle]


def test_only_handles_of_the_generation_are_forgotten(memory: SharedMemory, fake: FakeServer) -> None:
    """Calls that were sent before a restart fail after it; they must not take the new server's handles along."""
    _array, region = memory.allocate(4096)
    assert memory.keeper.register(region)
    old = memory.keeper.generation
    fake.restart()
    memory.keeper.check()
    assert memory.keeper.register(region)
    handle = region.handle
    memory.keeper.forget(old)
    assert region.handle == handle
    memory.keeper.forget(memory.keeper.generation)
    assert region.handle is None


def test_memory_that_the_server_refuses_goes_back_to_the_pool(memory: SharedMemory, fake: FakeServer) -> None:
    fake.registers = 8
    stager = Stager(memory)
    tensor = np.zeros((1, 1, 1 << 12, 4), np.float32)
    assert stager.stage([tensor] * 3, None, False, tensor.nbytes, 0) is None
    assert stager.pool.idle_bytes == 4 * tensor.nbytes
    assert stager.copied_in == 0
    stager.pool.close()


def test_a_refused_region_is_not_asked_for_at_once(memory: SharedMemory, fake: FakeServer) -> None:
    _array, region = memory.allocate(4096)
    fake.registers = 8
    assert not memory.keeper.register(region)
    fake.registers = 0
    assert not memory.keeper.register(region)
    assert region.refused_until > 0
    region.refused_until = 0.0
    assert memory.keeper.register(region)


def test_a_silent_server_is_left_alone(memory: SharedMemory, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_regions, "PATIENCE", 0.05)
    fake.silent = True
    _array, region = memory.allocate(4096)
    assert not memory.keeper.register(region)
    fake.silent = False
    assert not memory.keeper.worth_trying()
    assert not memory.keeper.register(region)


def test_a_caller_waits_no_longer_than_it_may(memory: SharedMemory, fake: FakeServer) -> None:
    fake.silent = True
    _array, region = memory.allocate(4096)
    start = time.monotonic()
    assert not memory.keeper.register(region, 0.05)
    assert time.monotonic() - start < 0.5


def test_a_finalizer_may_close_within_any_method(fake: FakeServer) -> None:
    memory = SharedMemory(RegionKeeper(fake.path))
    _array, region = memory.allocate(4096)
    assert memory.keeper.register(region)
    with memory.keeper._lock, memory._lock:
        memory.close()  # would wait for ever
    assert fake.regions
    memory.keeper.check()  # as whoever has held the lock does
    wait_for(lambda: not fake.regions)
    assert not memory.keeper.worth_trying()


def test_nobody_listens(tmp_path: pathlib.Path) -> None:
    memory = SharedMemory(RegionKeeper(str(tmp_path / "none")))
    _array, region = memory.allocate(4096)
    assert not memory.keeper.register(region)
    assert not memory.keeper.worth_trying()
    memory.close()


def test_arrays_outlive_the_memory(fake: FakeServer) -> None:
    memory = SharedMemory(RegionKeeper(fake.path))
    array, region = memory.allocate(4096)
    assert memory.keeper.register(region)
    memory.close()
    memory.close()
    wait_for(lambda: not fake.regions)
    del memory
    array[:] = 3
    assert array.sum() == 3 * 4096
    assert not [thread for thread in threading.enumerate() if "attnd" in thread.name]


def test_no_descriptor_left_is_an_error_and_leaves_nothing(memory: SharedMemory) -> None:
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(name) for name, _ in before) + 1, hard))
    try:
        held = []
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.dup(0))
        with pytest.raises(ResourceExhausted, match="Too many open files"):
            memory.allocate(4096)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)
    assert descriptors() == before
    assert memory.count == 0


def test_too_large_a_file_is_an_error_and_leaves_nothing(memory: SharedMemory) -> None:
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(ResourceExhausted):
            memory.allocate(2 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert descriptors() == before


@pytest.mark.parametrize("size", [1 << 62, 1 << 70])
def test_impossible_sizes_are_errors(memory: SharedMemory, size: int) -> None:
    before = descriptors()
    with pytest.raises(ResourceExhausted):
        memory.allocate(size)
    assert descriptors() == before


def test_threads_make_and_drop_memory(memory: SharedMemory, fake: FakeServer) -> None:
    def work() -> None:
        for size in range(1, 60):
            array, region = memory.allocate(4096 * size)
            assert memory.keeper.register(region, 60.0)
            place = memory.place(array.ctypes.data, array.nbytes)
            assert place is not None
            assert place[0] is region

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    join_all(threads)
    gc.collect()
    assert memory.count == 0
    wait_for(lambda: not fake.regions)


def test_answers_are_read_while_there_is_no_room_to_send(
    memory: SharedMemory, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that waits until its answers to releases are read takes no request meanwhile."""
    monkeypatch.setattr(_regions, "PATIENCE", 20.0)
    made = [memory.allocate(4096) for _ in range(400)]
    assert all(memory.keeper.register(region) for _array, region in made)
    fake.connections[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    go = threading.Event()
    answer = fake._fixed

    def answer_later(data: bytes, fds: List[int], mine: List[bytes]) -> bytes:
        go.wait(30)
        return answer(data, fds, mine)

    monkeypatch.setattr(fake, "_fixed", answer_later)
    made.clear()  # more releases than the socket holds
    go.set()
    _array, region = memory.allocate(4096)
    assert memory.keeper.register(region, 20.0)
    assert memory.keeper.generation == 0
