"""How objects show themselves in a shell, in a notebook and in help()."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import attnd
from conftest import Server


def request(**options: object) -> attnd.ComputeRequest:
    tensor = np.zeros((1, 8, 16, 64), np.float32)
    return attnd.ComputeRequest(tensor, tensor, tensor, "t5-tiny", **options)  # type: ignore[arg-type]


def test_a_request_shows_sizes_and_what_is_not_by_default() -> None:
    assert repr(request()) == (
        "ComputeRequest(q float32 (1, 8, 16, 64), k float32 (1, 8, 16, 64), v float32 (1, 8, 16, 64); 't5-tiny')"
    )
    shown = repr(request(mask="none", key_lengths=[3], out=np.zeros(2)))
    assert shown.endswith(", out float64 (2,); 't5-tiny', mask='none', key_lengths=[3])")


@pytest.mark.parametrize("wrong", [None, "text", [[1.0]]])
def test_a_request_of_anything_can_be_shown(wrong: object) -> None:
    assert f"q a {type(wrong).__name__}" in repr(attnd.ComputeRequest(wrong, wrong, wrong, "t5-tiny"))


def test_a_request_with_arrays_of_lengths_can_be_shown() -> None:
    assert "key_lengths=array([3])" in repr(request(key_lengths=np.array([3])))
    assert "key_lengths=array([3, 4])" in repr(request(key_lengths=np.array([3, 4])))


def test_what_a_server_gives_is_shown_in_a_line(server: Server) -> None:
    with attnd.Client(server.unix) as client:
        reply = client.compute(request(return_log_sum_exp=True))
        for shown in (reply, client.server_info(), client.list_models(), client.bias("book"), client):
            assert len(repr(shown)) < 200, repr(shown)
        assert repr(reply).startswith("ComputeReply(output float32 (1, 8, 16, 64), log_sum_exp float32 (1, 8, 16); ")
        picture = client.bias("t5-tiny", heads=[2]).svg(head=2)
    assert picture._repr_svg_() == picture
    assert picture.startswith("<svg") and len(repr(picture)) < 80


@pytest.mark.parametrize("twin", [attnd.Client, attnd.AsyncClient])
def test_signatures_are_those_of_methods(twin: type) -> None:
    signature = inspect.signature(twin.list_models)  # type: ignore[attr-defined]
    assert next(iter(signature.parameters)) == "self"
    assert signature.return_annotation == "List[Model]"
    assert "Operation" not in str(inspect.signature(twin.attend))  # type: ignore[attr-defined]
