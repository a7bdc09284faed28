"""JAX's arrays, in and out."""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np
import pytest

import attnd
from conftest import Server
from inputs import tensors

jax: Any = pytest.importorskip("jax")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[attnd.Client]:
    with attnd.Client(server.tcp) as found:
        yield found


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_in_and_out(client: attnd.Client, dtype: str) -> None:
    q, k, v = (jax.numpy.asarray(x, getattr(jax.numpy, dtype)) for x in tensors())
    output, lse = client.attend(q, k, v, "t5-tiny", return_log_sum_exp=True)
    assert isinstance(output, jax.Array)
    assert output.dtype == q.dtype
    assert lse.dtype == np.float32
    expected = client.attend(*(np.asarray(x) for x in (q, k, v)), "t5-tiny")
    assert np.array_equal(np.asarray(output), expected)


def test_refused(client: attnd.Client) -> None:
    q, k, v = (jax.numpy.asarray(x) for x in tensors())
    with pytest.raises(attnd.InvalidArgument, match="never can"):
        client.attend(q, k, v, "t5-tiny", out=q)
    with pytest.raises(attnd.InvalidArgument, match="pure_callback"):
        jax.jit(lambda x: client.attend(x, k, v, "t5-tiny"))(q)


def test_within_jit(client: attnd.Client) -> None:
    q, k, v = (jax.numpy.asarray(x) for x in tensors())

    def attend(*arrays: Any) -> Any:
        return np.asarray(client.attend(*(np.asarray(x) for x in arrays), "t5-tiny"))

    shape = jax.ShapeDtypeStruct(q.shape, q.dtype)
    output = jax.jit(lambda *arrays: jax.pure_callback(attend, shape, *arrays))(q, k, v)
    assert np.array_equal(np.asarray(output), client.attend(*tensors(), "t5-tiny"))
