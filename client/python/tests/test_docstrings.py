"""The examples in the docstrings are run against a real server."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any, Iterator

import numpy as np
import pytest

import attnd
from conftest import Server

# Generated; with a test of its own, as it needs torch and transformers.
ELSEWHERE = ("attnd.v1", "attnd.transformers")


def modules() -> list[str]:
    found = [attnd.__name__]
    for module in pkgutil.walk_packages(attnd.__path__, "attnd."):
        if not module.name.startswith(ELSEWHERE):
            found.append(module.name)
    return found


@pytest.fixture(scope="module")
def names(attnd_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the examples find: a server of their own, since some change its models, a client of it, and tensors."""
    server = Server(attnd_binary, tmp_path_factory.mktemp("server"), ("--shared_memory",))
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, 8, 16, 64)).astype(np.float32)
    with attnd.Client(server.unix) as client:
        found = {"attnd": attnd, "asyncio": asyncio, "np": np, "address": server.unix, "client": client}
        yield {**found, "q": q, "k": k, "v": v}
    assert server.stop() == 0, server.log.read_text()


@pytest.mark.parametrize("name", modules())
def test_examples_give_what_they_say(
    name: str, names: dict[str, Any], attnd_binary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTND_SERVER", names["address"])
    monkeypatch.setenv("ATTND_BINARY", attnd_binary)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    reports: list[str] = []
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name, extraglobs=names):
        runner.run(example, out=reports.append)
    assert runner.failures == 0, "".join(reports)


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What the package offers: the names in __all__, and the public methods of its classes."""
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        yield name, value
        if inspect.isclass(value) and not issubclass(value, BaseException):
            for method, inner in vars(value).items():
                if not method.startswith("_") and (inspect.isroutine(inner) or isinstance(inner, property)):
                    yield f"{name}.{method}", inner


def test_everything_public_is_described() -> None:
    bare = [name for name, value in public(attnd) if not (inspect.getdoc(value) or "").strip()]
    assert bare == []


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "local_server"])
def test_the_main_entries_have_examples(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(attnd, name)) or "")
