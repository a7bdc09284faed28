"""A piece of a large call is the call of a part of its arguments: with every argument, together with every other."""

from __future__ import annotations

import itertools
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest

import attnd
from attnd import _pieces
from attnd._pieces import Piece, Range
from attnd._request import Call
from attnd.v1 import attention_pb2
from conftest import Server
from fake_server import COMPUTE, FakeServer, answer_compute, fake  # noqa: F401
from inputs import same_bits, tensors

BATCH, HEADS, KV_HEADS, QUERIES, KEYS, DIM, VALUE_DIM = 3, 6, 2, 4, 5, 8, 7
GROUP = HEADS // KV_HEADS
random = np.random.default_rng(0)

# Arguments of a call, by the axis that they are cut along: of sequences, of heads, or none.
BY_SEQUENCE: Dict[str, Any] = {
    "query_offsets": [1, 0, 2],
    "query_lengths": [4, 2, 0],
    "key_lengths": [5, 0, 3],
    "key_starts": [0, 1, 2],
    "prefix_lengths": [2, 1, 0],
    "key_mask": np.array([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1], [0, 1, 1, 1, 0]], bool),
}
BY_HEAD: Dict[str, Any] = {"key_bias": random.standard_normal((HEADS, KEYS)).astype(np.float32)}
WHOLE: Dict[str, Any] = {
    "table": "encoder",
    "version": 3,
    "mask": "causal",
    "scale": 0.5,
    "query_offset": 2,
    "window_left": 3,
    "window_right": 1,
    "product_precision": "bfloat16",
    "output_dtype": "float16",
    "return_log_sum_exp": True,
    "first_head": 5,
}
EVERY = {**BY_SEQUENCE, **BY_HEAD, **WHOLE}


def arrays(layout: str, dtype: Any = np.float32) -> Any:
    q, k, v = tensors(HEADS, QUERIES, KEYS, batch=BATCH, kv_heads=KV_HEADS, dim=DIM, value_dim=VALUE_DIM, dtype=dtype)
    if layout == "bshd":
        q, k, v = (np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in (q, k, v))
    return q, k, v


def part_of(request: attnd.ComputeRequest, piece: Range) -> attnd.ComputeRequest:
    """The same request with the arguments of one piece alone."""
    rows = slice(piece.first_batch, piece.first_batch + piece.batch)
    keys = slice(piece.first_kv_head, piece.first_kv_head + piece.kv_heads)
    queries = slice(keys.start * GROUP, keys.stop * GROUP)
    axis = 2 if request.layout == "bshd" else 1

    def cut(array: Any, heads: slice) -> Any:
        where: List[Any] = [rows, slice(None), slice(None), slice(None)]
        where[axis] = heads
        return np.ascontiguousarray(array[tuple(where)])

    given = {name: getattr(request, name) for name in EVERY}
    for name in BY_SEQUENCE:
        if given[name] is not None:
            given[name] = given[name][rows]
    if given["key_bias"] is not None:
        given["key_bias"] = given["key_bias"][queries]
    if request.model is not None and piece.kv_heads != KV_HEADS:
        given["first_head"] = (given["first_head"] or 0) + queries.start
    return attnd.ComputeRequest(
        cut(request.q, queries),
        cut(request.k, keys),
        cut(request.v, keys),
        request.model,
        layout=request.layout,
        **given,
    )


def ranges() -> Iterator[Range]:
    for count in (1, 2, 3, 4, 6, 100):
        call = Call.of(attnd.ComputeRequest(*arrays("bhsd"), "m"))
        size = max(1, _pieces.call_bytes(call) // count)
        yield from _pieces.cut(call, size)


def message_of(request: attnd.ComputeRequest) -> attention_pb2.ComputeAttentionRequest:
    """What a whole call sends."""
    call = Call.of(request)
    message = call.header()
    message.q, message.k, message.v = (x.tobytes() for x in (call.q, call.k, call.v))
    return message


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("model", ["m", None])
@pytest.mark.parametrize("names", [(), *((name,) for name in EVERY), tuple(EVERY)], ids="+".join)
def test_a_piece_is_a_call_of_its_own(layout: str, model: Any, names: Any) -> None:
    given = {name: EVERY[name] for name in names if name != "query_offset" or len(names) == 1}
    if model is None:
        given = {name: value for name, value in given.items() if name not in ("table", "version", "first_head")}
        given.setdefault("mask", "causal")
    request = attnd.ComputeRequest(*arrays(layout), model, layout=layout, **given)
    call = Call.of(request)
    out = np.zeros(call.output_shape, np.float16)
    for piece_range in set(ranges()):
        piece = Piece(call, piece_range, out)
        sent = attention_pb2.ComputeAttentionRequest.FromString(piece.payload())
        expected = message_of(part_of(request, piece_range))
        whole_heads = piece_range.kv_heads == KV_HEADS
        assert sent.table_heads == (0 if model is None or whole_heads or "first_head" in names else HEADS)
        expected.table_heads = sent.table_heads
        assert sent == expected


def test_a_mask_of_all_true_is_none() -> None:
    request = attnd.ComputeRequest(*arrays("bhsd"), "m", key_mask=np.ones((BATCH, KEYS), bool))
    call = Call.of(request)
    piece = Piece(call, Range(1, 1, 0, 2), np.zeros(call.output_shape, np.float32))
    assert attention_pb2.ComputeAttentionRequest.FromString(piece.payload()).key_bits == b""


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 100])
def test_pieces_cover_the_call_once(layout: str, count: int) -> None:
    call = Call.of(attnd.ComputeRequest(*arrays(layout), "m", layout=layout, return_log_sum_exp=True))
    cut = _pieces.cut(call, max(1, _pieces.call_bytes(call) // count))
    assert len(cut) <= BATCH * KV_HEADS
    assert len(cut) >= min(count, BATCH)
    out = np.zeros(call.output_shape, np.float32)
    log_sum_exp = np.zeros((BATCH, HEADS, QUERIES), np.float32)
    for i, piece_range in enumerate(cut):
        piece = Piece(call, piece_range, out)
        assert piece.out is not None
        assert piece.output_shape == piece.out.shape
        assert not piece.out.any()
        piece.out[...] = i + 1
        assert piece.log_sum_exp_shape is not None
        before = log_sum_exp.copy()
        piece.place_log_sum_exp(log_sum_exp, np.full(piece.log_sum_exp_shape, i + 1, np.float32))
        assert not before[log_sum_exp == i + 1].any()
    assert out.all() and log_sum_exp.all()
    by_head = out if layout == "bhsd" else out.transpose(0, 2, 1, 3)
    assert np.array_equal(by_head[..., 0], log_sum_exp)  # both at the same rows


def test_what_is_not_cut() -> None:
    """Sequences that share keys, and packed ones of several rows."""
    q, k, v = tensors(queries=4, batch=3)
    for more in (
        {"kv_rows": [0, 0, 1]},
        {"query_segments": [0, 4, 6, 8]},
    ):
        call = Call.of(attnd.ComputeRequest(q, k, v, "m", **more))
        assert _pieces.cut(call, 1) == [Range(0, 3, 0, 8)]
    packed = Call.of(attnd.ComputeRequest(q[:1], k[:1], v[:1], "m", query_segments=[0, 2]))
    assert len(_pieces.cut(packed, 1)) == 8


OUTS = ("none", "own", "is q", "overlaps q", "overlaps k", "overlaps v", "read before")


@pytest.mark.parametrize("out", OUTS)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_no_result_overwrites_what_is_still_to_be_sent(
    fake: FakeServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    out: str,
) -> None:
    """The pieces are sent one after another, and each result is another number."""
    monkeypatch.setattr(_pieces, "PIECE_BYTES", 1000)
    monkeypatch.setattr(_pieces.cut, "__defaults__", (1000,))
    shape = (2, 4, 8, 16) if layout == "bhsd" else (2, 8, 4, 16)
    size = int(np.prod(shape))
    memory = random.standard_normal(4 * size).astype(np.float32)
    q, k, v = (memory[i * size : (i + 1) * size].reshape(shape) for i in range(3))
    begins = {"is q": 0, "overlaps q": size // 2, "overlaps k": size + 8, "overlaps v": 2 * size + 8}
    destination: Any = None
    if out == "own":
        destination = memory[3 * size :].reshape(shape)
    elif out == "read before":
        destination = np.full(shape, np.nan, np.float32)
    elif out in begins:
        destination = memory[begins[out] : begins[out] + size].reshape(shape)
    inputs = {name: array.copy() for name, array in zip("qkv", (q, k, v))}
    seen: Dict[str, List[bytes]] = {name: [] for name in "qkv"}

    def answer(request: bytes, context: Any) -> bytes:
        message = attention_pb2.ComputeAttentionRequest.FromString(request)
        for name in "qkv":
            seen[name].append(getattr(message, name))
        made = attention_pb2.ComputeAttentionResponse.FromString(answer_compute(request, context))
        made.output = np.full(len(made.output) // 4, len(seen["q"]), np.float32).tobytes()
        return made.SerializeToString()

    fake.handlers[COMPUTE] = answer
    with attnd.Client(fake.target, retry=None) as client:
        monkeypatch.setattr("attnd._attention.width_of", lambda core: 1)
        result = client.attend(q, k, v, "m", layout=layout, out=destination)
    assert destination is None or result is destination
    call = Call.of(attnd.ComputeRequest(*inputs.values(), "m", layout=layout))
    cut = _pieces.cut(call, 1000)
    assert len(cut) == len(seen["q"]) > 2
    for name in "qkv":
        expected = [_pieces.part(call, one, inputs[name], name != "q").tobytes() for one in cut]
        assert seen[name] == expected, f"{name} was overwritten"
    for i, one in enumerate(cut):
        assert set(_pieces.part(call, one, result, False).ravel().tolist()) == {i + 1}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_everything_together_over_every_way(server: Server, dtype: str, layout: str) -> None:
    """Ragged, grouped, padded, biased, with log-sum-exp, into a dirty buffer: in pieces by gRPC, else whole."""
    kind: Any = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    batch, queries = 3, 200
    q, k, v = tensors(8, queries, batch=batch, kv_heads=2, dim=64, dtype=kind)
    if layout == "bshd":
        q, k, v = (np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in (q, k, v))
    lengths = [queries, 33, 0]
    given: Dict[str, Any] = {
        "layout": layout,
        "query_lengths": lengths,
        "key_lengths": [queries, 170, 60],
        "key_starts": [5, 0, 60],
        "key_mask": np.random.default_rng(1).random((batch, queries)) < 0.8,
        "key_bias": random.standard_normal((8, queries)).astype(np.float32),
        "window_left": 90,
        "return_log_sum_exp": True,
    }
    found = {}
    for name, (target, options) in {
        "pieces": (server.tcp, {}),
        "local": (server.unix, {}),
        "shared_memory": (server.unix, {"local_calls": False}),
    }.items():
        with attnd.Client(target, **options) as client:
            out = client.empty(q.shape, q.dtype)
            out[...] = 77
            reply = client.compute(attnd.ComputeRequest(q, k, v, "t5-tiny", out=out, **given))
            assert reply.transport == ("grpc" if name == "pieces" else name)
            found[name] = np.array(reply.output), reply.log_sum_exp
    by_head = found["pieces"][0] if layout == "bhsd" else found["pieces"][0].transpose(0, 2, 1, 3)
    for b, length in enumerate(lengths):
        assert not by_head[b, :, length:].astype(np.float32).any()
    for one, other in itertools.combinations(found.values(), 2):
        assert same_bits(one[0], other[0])
        assert same_bits(one[1], other[1])
    # Against each sequence alone.
    with attnd.Client(server.tcp) as client:
        for b in range(2):
            alone = {
                **given,
                **{n: given[n][b : b + 1] for n in ("query_lengths", "key_lengths", "key_starts", "key_mask")},
            }
            output, log_sum_exp = client.attend(q[b : b + 1], k[b : b + 1], v[b : b + 1], "t5-tiny", **alone)
            assert same_bits(output, found["pieces"][0][b : b + 1])
            assert same_bits(log_sum_exp, found["pieces"][1][b : b + 1])
