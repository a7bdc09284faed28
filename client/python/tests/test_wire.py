"""Protobuf bytes that are written and read by hand: as the library does, and nothing beyond what is there."""

from __future__ import annotations

import itertools
from typing import Any, List, Tuple

import numpy as np
import pytest

import attnd
from attnd import _wire
from attnd._answer import answer_of, placed
from attnd.v1 import attention_pb2

RESPONSE = attention_pb2.ComputeAttentionResponse
SHAPE = (1, 2, 3, 4)


class Expected:
    output_code = 1
    output_shape = SHAPE
    log_sum_exp_shape = SHAPE[:3]
    out = None


def response(output: int = 96, log_sum_exp: int = 24, dtype: int = 1) -> bytes:
    return RESPONSE(
        dtype=dtype,  # type: ignore[arg-type]
        version=300,
        content_hash="hash",
        output=bytes(range(output)),
        log_sum_exp=bytes(log_sum_exp),
    ).SerializeToString()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_varints(value: int) -> None:
    message = RESPONSE(version=value).SerializeToString()
    assert message == (message[:1] + _wire.varint(value) if value else b"")
    assert _wire._read_varint(memoryview(_wire.varint(value)), 0) == (value, len(_wire.varint(value)))


@pytest.mark.parametrize("length", range(1, 12))
def test_varints_that_do_not_end(length: int) -> None:
    """Ten bytes are the most."""
    for data in (b"\x80" * length, b"\x80" * length + b"\x00"):
        ends = data[-1] == 0 and length < 10
        if ends:
            assert _wire._read_varint(memoryview(data), 0) == (0, length + 1)
        else:
            with pytest.raises(_wire.Malformed):
                _wire._read_varint(memoryview(data), 0)


def test_an_answer_that_is_cut_anywhere_is_none() -> None:
    """Unless it is cut between fields: then what is missing is missed."""
    whole = response()
    answer = answer_of(Expected, whole)
    assert answer.output.tobytes() == bytes(range(96))
    for end in range(len(whole)):
        with pytest.raises(attnd.Internal):
            answer_of(Expected, whole[:end])


@pytest.mark.parametrize(("output", "log_sum_exp"), itertools.product((0, 92, 95, 97, 100, 192), (24,)))
def test_an_output_of_another_size(output: int, log_sum_exp: int) -> None:
    with pytest.raises(attnd.Internal, match="output"):
        answer_of(Expected, response(min(output, 255), log_sum_exp))


@pytest.mark.parametrize("log_sum_exp", [0, 20, 23, 25, 28, 48])
def test_a_log_sum_exp_of_another_size(log_sum_exp: int) -> None:
    with pytest.raises(attnd.Internal, match="log_sum_exp"):
        answer_of(Expected, response(96, log_sum_exp))


@pytest.mark.parametrize("dtype", [0, 2, 3])
def test_an_output_of_another_type(dtype: int) -> None:
    with pytest.raises(attnd.Internal, match="dtype"):
        answer_of(Expected, response(dtype=dtype))


@pytest.mark.parametrize("size", [0, 95, 96, 97, 192])
@pytest.mark.parametrize("given", [False, True])
def test_a_result_is_placed_whole_or_not_at_all(size: int, given: bool) -> None:
    out = np.full(SHAPE, 7, np.float32) if given else None
    data = bytes(size)
    if size == 96:
        found = placed("output", data, SHAPE, 1, out)
        assert not found.any()
        assert found.flags.writeable
        assert found is out or out is None
        return
    with pytest.raises(attnd.Internal):
        placed("output", data, SHAPE, 1, out)
    assert out is None or (out == 7).all()


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 6, 7])
def test_fields_of_every_kind(kind: int) -> None:
    """Wire types of protobuf are read with their bytes, others are refused; so is a field that is cut at any byte."""
    values = {0: _wire.varint(300), 1: bytes(8), 2: _wire.varint(5) + b"hello", 5: bytes(4)}
    tag = _wire.varint(77 << 3 | kind)
    if kind not in values:
        with pytest.raises(_wire.Malformed):
            list(_wire.fields(memoryview(tag + bytes(8))))
        return
    data = tag + values[kind]
    ((number, value, begin, end),) = _wire.fields(memoryview(data))
    assert (number, begin, end) == (77, 0, len(data))
    assert value == 300 if kind == 0 else bytes(value) == {1: bytes(8), 2: b"hello", 5: bytes(4)}[kind]  # type: ignore[arg-type]
    for cut in range(1, len(data)):
        with pytest.raises(_wire.Malformed):
            list(_wire.fields(memoryview(data[:cut])))


def test_the_last_of_repeated_tensors_counts() -> None:
    message = RESPONSE(output=b"one").SerializeToString() + RESPONSE(output=b"two", version=3).SerializeToString()
    small, tensors = _wire.split(message)
    assert RESPONSE.FromString(small) == RESPONSE(version=3)
    assert bytes(tensors[_wire.OUTPUT]) == b"two"


def strided(array: Any, way: str) -> Any:
    if way == "gaps":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if way == "transposed":
        return np.ascontiguousarray(array.swapaxes(1, 2)).swapaxes(1, 2)
    if way == "reversed":
        return np.ascontiguousarray(array[:, ::-1])[:, ::-1]
    return array


@pytest.mark.parametrize("ways", itertools.product(("as it is", "gaps", "transposed", "reversed"), repeat=3))
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tensors_are_joined_as_they_look(ways: Tuple[str, ...], dtype: Any) -> None:
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((2, 3, 4 + i, 5)).astype(dtype) for i in range(3)]
    tensors: List[Any] = [(number, strided(a, way)) for number, a, way in zip((100, 101, 102), arrays, ways)]
    header = attention_pb2.ComputeAttentionRequest(model="m", batch=2)
    parsed = attention_pb2.ComputeAttentionRequest.FromString(_wire.join(header.SerializeToString(), tensors))
    header.q, header.k, header.v = (array.tobytes() for array in arrays)
    assert parsed == header
