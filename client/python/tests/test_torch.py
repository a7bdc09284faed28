"""torch's tensors, in and out."""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np
import pytest

import attnd
from conftest import Server
from inputs import tensors

torch: Any = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[attnd.Client]:
    with attnd.Client(server.tcp) as found:
        yield found


def torch_tensors(dtype: Any, **sizes: Any) -> list[Any]:
    return [torch.from_numpy(x).to(dtype) for x in tensors(**sizes)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("queries", [16, 1200])
def test_in_and_out(client: attnd.Client, dtype: str, queries: int) -> None:
    q, k, v = torch_tensors(getattr(torch, dtype), queries=queries)
    output, lse = client.attend(q, k, v, "t5-tiny", return_log_sum_exp=True, output_dtype=torch.float32)
    assert (type(output), output.dtype, type(lse), lse.dtype) == (torch.Tensor, torch.float32) * 2
    wide = client.attend(*(x.float().numpy() for x in (q, k, v)), "t5-tiny")
    assert np.abs(output.numpy() - wide).max() < {"float32": 1e-6, "float16": 1e-5, "bfloat16": 0.1}[dtype]
    assert client.attend(q, k, v, "t5-tiny").dtype is getattr(torch, dtype)
    out = torch.empty_like(q)
    assert client.attend(q, k, v, "t5-tiny", out=out) is out
    assert torch.equal(out, client.attend(q, k, v, "t5-tiny"))


def test_projections_are_sent_as_they_lie(client: attnd.Client) -> None:
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in torch_tensors(torch.bfloat16))
    assert not q.is_contiguous()
    assert torch.equal(
        client.attend(q, k, v, "t5-tiny"), client.attend(*(x.contiguous() for x in (q, k, v)), "t5-tiny")
    )


def test_gradients(client: attnd.Client) -> None:
    q, k, v = torch_tensors(torch.float32)
    q.requires_grad_()
    with pytest.raises(attnd.InvalidArgument, match=r"q\.detach\(\)"):
        client.attend(q, k, v, "t5-tiny")
    with torch.no_grad():
        output = client.attend(q, k, v, "t5-tiny")
    assert torch.equal(output, client.attend(q.detach(), k, v, "t5-tiny"))
    assert not output.requires_grad


def test_refused(client: attnd.Client) -> None:
    q, k, v = torch_tensors(torch.float32)
    for wrong, field, got in (
        (k.to("meta"), "k", "one on meta"),
        (k.double(), "k.dtype", "torch.float64"),
        (k.to_sparse(), "k", "torch.sparse_coo"),
        (k.numpy(), "k", "a numpy.ndarray"),
        (k[0], "k", "3 axes"),
    ):
        with pytest.raises(attnd.InvalidArgument) as caught:
            client.attend(q, wrong, v, "t5-tiny")
        assert caught.value.field == field
        assert got in caught.value.got


def test_out_of_numpy_beside_tensors(client: attnd.Client) -> None:
    q, k, v = torch_tensors(torch.float32)
    out = np.empty(q.shape, np.float32)
    assert client.attend(q, k, v, "t5-tiny", out=out) is out
    assert np.array_equal(out, client.attend(q, k, v, "t5-tiny").numpy())
