"""Settings of the tests of attnd.transformers."""

from __future__ import annotations

import pathlib
import sys
from typing import Any, Iterator

import pytest

import attnd
from conftest import Server

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # torch and transformers warn of each other's changes.
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:::(?!attnd)"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """torch's threads wait by spinning, which takes the processor from the server where tests run beside each other."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_server_in_the_environment(monkeypatch: pytest.MonkeyPatch, attnd_binary: str) -> None:
    monkeypatch.delenv("ATTND_SERVER", raising=False)
    monkeypatch.setenv("ATTND_BINARY", attnd_binary)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[attnd.Client]:
    with attnd.Client(server.unix) as found:
        yield found
