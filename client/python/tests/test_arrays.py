"""What goes in as q, k, v and out, and what comes back."""

from __future__ import annotations

import array
from typing import Any, Callable, Iterator

import numpy as np
import pytest

import attnd
from attnd import _wire
from attnd._request import Call
from conftest import Server
from inputs import same_bits, tensors


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[attnd.Client]:
    with attnd.Client(server.tcp, shared_memory=False, local_calls=False) as found:
        yield found


@pytest.fixture(scope="module")
def expected(client: attnd.Client) -> Any:
    return client.attend(*tensors(), "t5-tiny")


def transposed(x: Any) -> Any:
    """The same values as a view of [batch, sequence, heads, dim]."""
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)


def every_second(x: Any) -> Any:
    wide = np.zeros((*x.shape[:3], 2 * x.shape[3]), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def unaligned(x: Any) -> Any:
    memory = bytearray(x.nbytes + 1)
    view = np.frombuffer(memory, x.dtype, offset=1, count=x.size).reshape(x.shape)
    np.frombuffer(memory, np.uint8)[1:] = x.view(np.uint8).ravel()
    return view


def read_only(x: Any) -> Any:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


VIEWS: dict[str, Callable[[Any], Any]] = {
    "transposed": transposed,
    "every second element": every_second,
    "backwards": lambda x: np.ascontiguousarray(x[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
    "Fortran order": np.asfortranarray,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "unaligned": unaligned,
    "read-only": read_only,
    "memoryview": memoryview,
    "subclass": lambda x: x.view(type("Mine", (np.ndarray,), {})),
}


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_views(client: attnd.Client, expected: Any, make: Callable[[Any], Any]) -> None:
    q, k, v = (make(x) for x in tensors())
    output = client.attend(q, k, v, "t5-tiny")
    assert type(output) is np.ndarray
    assert same_bits(output, expected)
    assert output.flags.writeable


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_one_view_beside_plain_arrays(client: attnd.Client, expected: Any, make: Callable[[Any], Any]) -> None:
    q, k, v = tensors()
    assert same_bits(client.attend(q, make(k), v, "t5-tiny"), expected)


def test_views_of_the_other_layout_are_sent_as_they_lie() -> None:
    q, k, v = (transposed(x) for x in tensors(queries=5))
    call = Call(attnd.ComputeRequest(q, k, v, "t5-tiny"))
    assert call.sequence_first
    for ours, theirs in ((call.q, q), (call.k, k), (call.v, v)):
        assert ours.flags.c_contiguous
        assert np.shares_memory(ours, theirs)
    assert call.header().layout == 2
    assert call.header().heads == 8
    assert call.header().query_length == 5


def test_the_layout_with_fewer_bytes_to_copy_is_taken() -> None:
    q, k, v = tensors(queries=5, keys=50)
    assert Call(attnd.ComputeRequest(transposed(q), k, v, "m")).sequence_first is False
    assert Call(attnd.ComputeRequest(q, transposed(k), transposed(v), "m")).sequence_first is True


def test_a_broadcast_array(client: attnd.Client) -> None:
    q, k, v = tensors(heads=8, kv_heads=1)
    wide = [np.broadcast_to(x, (1, 8, 16, 64)) for x in (k, v)]
    assert same_bits(client.attend(q, *wide, "t5-tiny"), client.attend(q, k, v, "t5-tiny"))


def test_strided_tensors_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = transposed(tensors(queries=3)[0])
    message = _wire.join(b"head", ((100, x), (101, tensors()[1])))
    plain = _wire.join(b"head", ((100, np.ascontiguousarray(x)), (101, tensors()[1])))
    assert message == plain


def test_nan_and_infinity_travel(client: attnd.Client) -> None:
    q, k, v = tensors()
    v[0, 3, 5, 7] = np.nan
    output = client.attend(q, k, v, "t5-tiny", mask="none")
    assert np.isnan(output[0, 3, :, 7]).all()
    assert np.isfinite(output[0, 2]).all()


class Dlpack:
    """An object with DLPack and nothing else."""

    def __init__(self, wrapped: Any, device: int = 1) -> None:
        self._wrapped = wrapped
        self._device = device

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._wrapped.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self._device, 0)


def test_dlpack(client: attnd.Client, expected: Any) -> None:
    q, k, v = (Dlpack(x) for x in tensors())
    assert same_bits(client.attend(q, k, v, "t5-tiny"), expected)


REFUSED: dict[str, tuple[Callable[[Any], Any], str, str, str]] = {
    "list": (lambda x: x.tolist(), "k", "an array", "builtins.list"),
    "None": (lambda x: None, "k", "an array", "NoneType"),
    "text": (lambda x: "k", "k", "an array", "builtins.str"),
    "float64": (lambda x: x.astype(np.float64), "k.dtype", "float32, float16 or bfloat16", "float64"),
    "int64": (lambda x: x.astype(np.int64), "k.dtype", "float32, float16 or bfloat16", "int64"),
    "complex": (lambda x: x.astype(np.complex64), "k.dtype", "float32, float16 or bfloat16", "complex64"),
    "objects": (lambda x: x.astype(object), "k.dtype", "float32, float16 or bfloat16", "object"),
    "another dtype": (lambda x: x.astype(np.float16), "k.dtype", "float32 as q has", "float16"),
    "3 axes": (lambda x: x[0], "k", "4 axes, [batch, heads, sequence, dim]", "3 axes, of sizes [8, 16, 64]"),
    "no axes": (lambda x: np.float32(1), "k", "4 axes", "0 axes"),
    "one axis": (lambda x: array.array("f", [1.0]), "k", "4 axes", "1 axes"),
    "bytes": (bytes, "k.dtype", "float32, float16 or bfloat16", "uint8"),
    "empty batch": (lambda x: x[:0], "k.batch", "at least 1", "0"),
    "no keys": (lambda x: x[:, :, :0], "k.sequence", "at least 1", "0"),
    "no dims": (lambda x: x[..., :0], "k.head_dim", "at least 1", "0"),
    "other heads": (lambda x: x[:, :3], "k.heads", "8 as q and v has", "3"),
    "other batch": (lambda x: np.concatenate([x, x]), "k.batch", "1 as q and v has", "2"),
    "other head_dim": (lambda x: x[..., :32], "k.head_dim", "64 as q has", "32"),
    "masked array": (np.ma.masked_invalid, "k", "without a mask", "a masked array"),
    "on a GPU": (lambda x: Dlpack(x, 2), "k", "an array in the CPU's memory", "one on cuda"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client: attnd.Client, case: str) -> None:
    make, field, expected, got = REFUSED[case]
    q, k, v = tensors()
    with pytest.raises(attnd.InvalidArgument) as caught:
        client.attend(q, make(k), v, "t5-tiny")
    assert caught.value.field == field
    assert expected in caught.value.expected
    assert got in caught.value.got
    assert str(caught.value) == f"{field}: expected {caught.value.expected}, got {caught.value.got}"
    assert isinstance(caught.value, ValueError)


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "layout": ({"layout": "bhld"}, "layout"),
    "unhashable layout": ({"layout": []}, "layout"),
    "mask": ({"mask": "all"}, "mask"),
    "scale": ({"scale": float("nan")}, "scale"),
    "scale beyond float32": ({"scale": 1e39}, "scale"),
    "text as scale": ({"scale": "big"}, "scale"),
    "version": ({"version": -1}, "version"),
    "version of float": ({"version": 1.5}, "version"),
    "query_offset": ({"query_offset": -17}, "query_offset"),
    "far query_offset": ({"query_offset": 2**31}, "query_offset"),
    "query_lengths": ({"query_lengths": [17]}, "query_lengths[0]"),
    "too many lengths": ({"key_lengths": [1, 2]}, "key_lengths"),
    "a length alone": ({"key_lengths": 3}, "key_lengths"),
    "first_head": ({"first_head": -1}, "first_head"),
    "product_precision": ({"product_precision": "float16"}, "product_precision"),
    "output_dtype": ({"output_dtype": "float64"}, "output_dtype"),
    "output_dtype as object": ({"output_dtype": object()}, "output_dtype"),
    "table": ({"table": 3}, "table"),
    "timeout": ({"timeout": "soon"}, "timeout"),
    "NaN timeout": ({"timeout": float("nan")}, "timeout"),
    "metadata": ({"metadata": {"Upper": "x"}}, "metadata"),
    "metadata of text": ({"metadata": "key"}, "metadata"),
    "metadata of a number": ({"metadata": 3}, "metadata"),
    "metadata of gRPC": ({"metadata": {"grpc-timeout": "1S"}}, "metadata"),
    "metadata with a space": ({"metadata": {"a b": "x"}}, "metadata"),
    "metadata with a newline": ({"metadata": {"a": "x\ny"}}, "metadata"),
    "text as binary metadata": ({"metadata": [("a-bin", "x")]}, "metadata"),
    "bytes as text metadata": ({"metadata": [("a", b"x")]}, "metadata"),
    "half a surrogate pair": ({"table": "\ud800"}, "table"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_refused_arguments(client: attnd.Client, case: str) -> None:
    arguments, field = ARGUMENTS[case]
    with pytest.raises(attnd.InvalidArgument) as caught:
        client.attend(*tensors(), "t5-tiny", **arguments)
    assert caught.value.field == field
    assert caught.value.expected
    assert caught.value.got


@pytest.mark.parametrize("name", ["", 7, b"t5-tiny", "\ud800"])
def test_refused_models(client: attnd.Client, name: Any) -> None:
    with pytest.raises(attnd.InvalidArgument) as caught:
        client.attend(*tensors(), name)
    assert caught.value.field == "model"


@pytest.mark.parametrize("queries", [16, 1100])
@pytest.mark.parametrize("make", [np.empty_like, transposed, every_second], ids=["plain", "transposed", "strided"])
def test_out(client: attnd.Client, queries: int, make: Callable[[Any], Any]) -> None:
    q, k, v = tensors(queries=queries)
    out = make(q)
    result, lse = client.attend(q, k, v, "t5-tiny", out=out, return_log_sum_exp=True)
    assert result is out
    assert lse.shape == (1, 8, queries)
    assert np.array_equal(out, client.attend(q, k, v, "t5-tiny"))


@pytest.mark.parametrize("queries", [16, 1100])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_out_may_overlap(client: attnd.Client, queries: int, which: int) -> None:
    """Also where pieces of the result arrive before the last piece is sent."""
    arrays = tensors(queries=queries)
    expected = client.attend(*arrays, "t5-tiny")
    out = arrays[which][:, ::-1]
    assert client.attend(*arrays, "t5-tiny", out=out) is out
    assert np.array_equal(out, expected)


def test_out_of_another_dtype(client: attnd.Client) -> None:
    q, k, v = tensors()
    out = np.empty(q.shape, np.float16)
    client.attend(q, k, v, "t5-tiny", out=out, output_dtype="f16")
    assert same_bits(out, client.attend(q, k, v, "t5-tiny", output_dtype="f16"))


OUTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "shape": (lambda x: np.empty((1, 8, 16, 32), np.float32), "out"),
    "rank": (lambda x: np.empty(x.size, np.float32), "out"),
    "dtype": (lambda x: np.empty(x.shape, np.float16), "out.dtype"),
    "read-only": (read_only, "out"),
    "list": (lambda x: x.tolist(), "out"),
    "bytes": (lambda x: memoryview(x.tobytes()).cast("f", x.shape), "out"),
}


@pytest.mark.parametrize("case", OUTS)
def test_refused_outs(client: attnd.Client, case: str) -> None:
    make, field = OUTS[case]
    q, k, v = tensors()
    with pytest.raises(attnd.InvalidArgument) as caught:
        client.attend(q, k, v, "t5-tiny", out=make(q))
    assert caught.value.field == field


def test_out_as_a_memoryview(client: attnd.Client, expected: Any) -> None:
    memory = bytearray(expected.nbytes)
    out = memoryview(memory).cast("f", expected.shape)
    assert client.attend(*tensors(), "t5-tiny", out=out) is out
    assert bytes(memory) == expected.tobytes()


def test_a_message_too_large_for_protobuf() -> None:
    one = np.zeros((1, 1, 1, 64), np.float32)
    q = np.broadcast_to(one, (1, 8, 1 << 20, 64))
    with pytest.raises(attnd.ResourceExhausted) as caught:
        Call(attnd.ComputeRequest(q, one, one, "m"))
    assert caught.value.field == "q, k and v"
