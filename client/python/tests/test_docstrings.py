"""The examples in the docstrings are run against a real server, which ATTND_SERVER names."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

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
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(example, out=reports.append)
    assert runner.failures == 0, "".join(reports)
