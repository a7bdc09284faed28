"""The examples in the docstrings of attnd.transformers are run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import Any

import pytest

import attnd.transformers

from .libraries import torch
from .models import make

MODULES = [
    attnd.transformers.__name__,
    *(module.name for module in pkgutil.iter_modules(attnd.transformers.__path__, "attnd.transformers.")),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    reports: list[str] = []
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        names: dict[str, Any] = {
            "attnd": attnd,
            "torch": torch,
            "model": make("T5 with decoder"),
            "ids": torch.ones(2, 20).long(),
        }
        example.globs.update(names)
        runner.run(example, out=reports.append)
        if vars(names["model"].encoder.block[0].layer[0].SelfAttention).get("_attnd"):
            attnd.transformers.detach(names["model"])
    assert runner.failures == 0, "".join(reports)
