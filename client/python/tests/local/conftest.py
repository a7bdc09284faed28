"""A server that does as the test asks, and memory that is shared with it. A file may have another `fake`."""

from __future__ import annotations

import pathlib
from typing import Iterator

import pytest

from attnd._regions import RegionKeeper
from attnd._shm import SharedMemory

from .fake_server import FakeServer, Losses


@pytest.fixture
def fake(tmp_path: pathlib.Path) -> Iterator[FakeServer]:
    server = FakeServer(tmp_path / "s.shm")
    yield server
    server.stop()


@pytest.fixture
def memory(fake: FakeServer) -> Iterator[SharedMemory]:
    memory = SharedMemory(RegionKeeper(fake.path))
    yield memory
    memory.close()


@pytest.fixture
def losses() -> Losses:
    return Losses()
