"""Mistakes that users make are told so at once, in words that say what to write instead."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import attnd
from conftest import Server


@pytest.mark.parametrize(
    ("target", "instead"),
    [
        ("http://attnd.example:50051", "expected attnd.example:50051, without a scheme"),
        ("https://attnd.example/", "expected attnd.example, without a scheme"),
        ("grpc://127.0.0.1:50051", "expected 127.0.0.1:50051, without a scheme"),
        ("tcp://127.0.0.1:50051", "expected 127.0.0.1:50051, without a scheme"),
        ("/run/attnd/attnd.sock", "expected unix:///run/attnd/attnd.sock for a Unix socket"),
        ("unix:", "expected unix:path or unix:///absolute/path"),
    ],
)
@pytest.mark.parametrize("kind", [attnd.Client, attnd.AsyncClient])
def test_targets_of_other_systems(kind: type, target: str, instead: str) -> None:
    with pytest.raises(attnd.InvalidArgument) as caught:
        kind(target)
    assert caught.value.field == "target"
    assert instead in str(caught.value)


@pytest.mark.parametrize(
    "target", ["dns:///attnd.example:50051", "dns://8.8.8.8/attnd.example:50051", "unix:///x", "a:1"]
)
def test_targets_of_grpc(target: str) -> None:
    attnd.Client(target).close()


def test_one_head_instead_of_a_list(server: Server) -> None:
    with attnd.Client(server.unix) as client, pytest.raises(attnd.InvalidArgument) as caught:
        client.bias("t5-tiny", heads=3)  # type: ignore[arg-type]
    assert str(caught.value) == "heads: expected heads, or None or 'all' for all, got 3"


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_for_another_process(server: Server, take: Any) -> None:
    with attnd.Client(server.unix) as client:
        with pytest.raises(TypeError, match=r"attnd\.Client has connections, and is neither copied nor pickled"):
            take(client)
        assert client.health() is attnd.ServingStatus.SERVING


@pytest.mark.parametrize("local_calls", [True, False])
def test_a_timeout_says_how_long_it_was(server: Server, local_calls: bool) -> None:
    q = np.zeros((1, 8, 2048, 64), np.float32)
    with attnd.Client(server.unix, local_calls=local_calls) as client:
        client.attend(q[:, :, :1], q[:, :, :1], q[:, :, :1], "t5-tiny")  # which connects
        for timeout in (1e-9, 0.001, 0.003, 0.01):
            with pytest.raises(attnd.DeadlineExceeded) as caught:
                client.attend(q, q, q, "t5-tiny", timeout=timeout)
            assert "within -" not in str(caught.value)
