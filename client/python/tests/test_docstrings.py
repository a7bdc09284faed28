"""The examples in the docstrings are run against a real server, which ATTND_SERVER names.

They may use attnd, np, asyncio, a client, and q, k, v of the model t5-tiny.
"""

from __future__ import annotations

import asyncio
import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import attnd
from conftest import Server

GENERATED = "attnd.v1"


def modules() -> list[str]:
    found = [attnd.__name__]
    for module in pkgutil.walk_packages(attnd.__path__, "attnd."):
        if not module.name.startswith(GENERATED):
            found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_give_what_they_say(name: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTND_SERVER", server.unix)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    reports: list[str] = []
    tensor = np.ones((1, 8, 16, 64), np.float32)
    with attnd.Client() as client:
        known = {"attnd": attnd, "np": np, "asyncio": asyncio, "client": client, "q": tensor, "k": tensor, "v": tensor}
        for example in doctest.DocTestFinder(exclude_empty=True).find(module, name, extraglobs=known):
            runner.run(example, out=reports.append)
    assert runner.failures == 0, "".join(reports)
