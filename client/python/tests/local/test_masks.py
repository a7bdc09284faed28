"""The masks of a call, and calls without a model, by every way to a server: against numpy in float64 and attnctl."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import pytest

import attnd
import safetensors_files
from attnd import _masks
from attnd._request import Call
from conftest import Server
from inputs import DOORS, same_bits, tensors

BATCH, QUERIES, KEYS = 3, 12, 21
SIZES: Dict[str, Any] = {"batch": BATCH, "queries": QUERIES, "keys": KEYS, "kv_heads": 4, "dim": 16}
KEY_MASK = np.random.default_rng(7).random((BATCH, KEYS)) < 0.6
KEY_BIAS = np.random.default_rng(8).normal(size=(8, KEYS)).astype(np.float32)
CASES: Dict[str, Dict[str, Any]] = {
    "none": {},
    "query offsets": {"query_offsets": [-1, 9, 4]},
    "key starts": {"key_starts": [0, 21, 6]},
    "key mask": {"key_mask": KEY_MASK},
    "padding on both sides": {"key_starts": np.array([2, 0, 6]), "key_lengths": [21, 20, 9]},
    "window": {"window_left": 3, "window_right": 2},
    "window on the left": {"window_left": 0},
    "key bias": {"key_bias": KEY_BIAS},
    "all": {
        "query_offsets": np.array([9, -3, 0]),
        "query_lengths": (12, 5, 0),
        "key_starts": [1, 0, 3],
        "key_lengths": [20, 21, 8],
        "key_mask": KEY_MASK,
        "window_left": 8,
        "window_right": 4,
        "key_bias": KEY_BIAS,
    },
}


@pytest.fixture(scope="module", params=DOORS)
def client(request: Any, server: Server) -> Iterator[attnd.Client]:
    target, options = DOORS[request.param]
    with attnd.Client(getattr(server, target), **options) as found:
        yield found


def seen(mask: str, options: Dict[str, Any], batch: int, queries: int, keys: int) -> Any:
    """[batch, queries, keys]: whether a query row sees a key row."""
    i, j = np.arange(queries)[None, :, None], np.arange(keys)[None, None, :]

    def each(name: str, default: int) -> Any:
        return np.broadcast_to(options.get(name, default), (batch,))[:, None, None]

    found = (each("key_starts", 0) <= j) & (j < each("key_lengths", keys)) & (i < each("query_lengths", queries))
    position = each("query_offsets", keys - queries) + i
    if mask == "causal":
        found = found & ((j <= position) | (j < each("prefix_lengths", 0)))
    found = found & (j >= position - options.get("window_left", keys + queries))
    found = found & (j <= position + options.get("window_right", keys + queries))
    return found & options["key_mask"][:, None, :] if "key_mask" in options else found


def formula(q: Any, k: Any, v: Any, bias: Any, visible: Any) -> Tuple[Any, Any]:
    """The output and the log-sum-exp in float64. `bias` [batch, heads, queries, keys] or 0."""
    k, v = (np.repeat(x.astype(np.float64), q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    logits = q.astype(np.float64) @ k.swapaxes(2, 3) + bias
    logits = np.where(visible[:, None], logits, -np.inf)
    largest = logits.max(-1, keepdims=True, initial=-1e300)
    weights = np.exp(logits - largest)
    total = weights.sum(-1, keepdims=True)
    output = weights @ v / np.where(total == 0, 1, total)
    with np.errstate(divide="ignore"):
        return output, (np.log(total) + largest)[..., 0]


def table_bias(client: attnd.Client, options: Dict[str, Any]) -> Any:
    """[batch, heads, queries, keys] of t5-tiny's decoder."""
    offsets = options.get("query_offsets", [KEYS - QUERIES] * BATCH)
    before = -min(0, *offsets)  # a window has no position before 0: all of them move
    windows = [
        client.bias(
            "t5-tiny", queries=QUERIES, keys=KEYS, query_start=offset + before, key_start=before, mask="none"
        ).values
        for offset in map(int, offsets)
    ]
    return np.stack(windows)


@pytest.mark.parametrize("mask", ["causal", "none"])
@pytest.mark.parametrize("model", [None, "t5-tiny"])
@pytest.mark.parametrize("case", CASES)
def test_the_formula(client: attnd.Client, case: str, model: Any, mask: str) -> None:
    options = CASES[case]
    q, k, v = tensors(**SIZES)
    output, lse = client.attend(q, k, v, model, mask=mask, return_log_sum_exp=True, **options)
    bias = 0 if model is None else table_bias(client, options)
    if "key_bias" in options:
        bias = bias + options["key_bias"][None, :, None, :]
    expected, expected_lse = formula(q, k, v, bias, seen(mask, options, BATCH, QUERIES, KEYS))
    assert np.abs(output - expected).max() < 2e-5
    finite = np.isfinite(expected_lse)
    assert np.array_equal(np.isfinite(lse), finite)
    assert np.abs(lse[finite] - expected_lse[finite]).max() < 2e-5
    assert not output[~finite].any()


@pytest.mark.parametrize("model", [None, "t5-tiny"])
@pytest.mark.parametrize("window", [{}, {"window_left": 4, "window_right": 1}], ids=["alone", "in a window"])
def test_prefixes(client: attnd.Client, model: Any, window: Dict[str, Any]) -> None:
    options = {"prefix_lengths": [0, 13, 21], **window}
    q, k, v = tensors(**SIZES)
    output = client.attend(q, k, v, model, mask="causal", **options)
    bias = 0 if model is None else table_bias(client, options)
    expected, _ = formula(q, k, v, bias, seen("causal", options, BATCH, QUERIES, KEYS))
    assert np.abs(output - expected).max() < 2e-5


def test_a_prefix_needs_a_causal_mask(client: attnd.Client) -> None:
    q, k, v = tensors(**SIZES)
    words = r"prefix_lengths: expected none without a causal mask, got 3 values"
    for model, mask in (("t5-tiny", "none"), (None, "none"), (None, None)):
        with pytest.raises(attnd.InvalidArgument, match=words):
            client.attend(q, k, v, model, mask=mask, prefix_lengths=[1, 1, 1])


def test_without_a_model_nothing_of_one_comes_back(client: attnd.Client) -> None:
    q, k, v = tensors(heads=5)  # as no loaded model has
    reply = client.compute(attnd.ComputeRequest(q, k, v, None, return_log_sum_exp=True))
    assert (reply.version, reply.content_hash) == (0, "")
    expected, expected_lse = formula(q, k, v, 0, np.ones((1, 16, 16), bool))
    assert np.abs(reply.output - expected).max() < 2e-5
    assert np.abs(reply.log_sum_exp - expected_lse).max() < 2e-5
    causal = client.attend(q, k, v, None, mask="causal")
    assert np.abs(causal - formula(q, k, v, 0, np.tri(16, dtype=bool)[None])[0]).max() < 2e-5


FLAGS: Dict[str, List[str]] = {
    "query offsets": ["--query_offsets=-1,9,4"],
    "key starts": ["--key_starts=0,21,6"],
    "key mask": ["--key_mask=mask"],
    "all": [
        "--query_offsets=9,-3,0",
        "--query_lengths=12,5,0",
        "--key_starts=1,0,3",
        "--key_lengths=20,21,8",
        "--key_mask=mask",
        "--window_left=8",
        "--window_right=4",
        "--key_bias=key_bias",
    ],
    "window": ["--window_left=3", "--window_right=2"],
    "key bias": ["--key_bias=key_bias"],
}


@pytest.mark.parametrize("model", [None, "t5-tiny"])
@pytest.mark.parametrize(
    ("case", "mask_dtype"), [*((case, "bool") for case in FLAGS), ("all", "uint8"), ("all", "int64")]
)
def test_the_same_bits_as_attnctl(
    server: Server, attnctl_binary: str, tmp_path: pathlib.Path, case: str, model: Any, mask_dtype: str
) -> None:
    q, k, v = tensors(**SIZES)
    arrays = {"q": q, "k": k, "v": v, "mask": KEY_MASK.astype(mask_dtype), "key_bias": KEY_BIAS}
    safetensors_files.write(tmp_path / "in", arrays)
    origin = "--bias=none" if model is None else f"--model={model}"
    files = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}"]
    subprocess.run(
        [attnctl_binary, "attend", origin, f"--server={server.tcp}", "--lse", *files, *FLAGS[case]], check=True
    )
    expected, said = safetensors_files.read(tmp_path / "out")
    assert said.get("bias", said.get("model")) == (model or "none")
    for flag in FLAGS[case]:
        name, value = flag[2:].split("=")
        if name == "key_mask":
            name, value = "key_bits", _masks.key_bits(KEY_MASK, BATCH, KEYS).hex()
        if name == "key_bias":
            value = f"{KEY_BIAS.size} values"
        assert said[name] == value
    for target, door_options in DOORS.values():
        with attnd.Client(getattr(server, target), **door_options) as client:
            output, lse = client.attend(q, k, v, model, return_log_sum_exp=True, **CASES[case])
        assert same_bits(output, expected["o"])
        assert same_bits(lse, expected["lse"])


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (KEY_MASK.T, "mask: expected [3, 21] (batch, keys), got [21, 3]"),
        (np.ones((3, 1, 1, 21), bool), "mask: expected [3, 21] (batch, keys), got [3, 1, 1, 21]"),
        (np.full((3, 21), 2, np.uint8), "mask: expected 0 and 1, got another number"),
        (np.full((3, 21), 256), "mask: expected 0 and 1, got another number"),
        (-KEY_MASK.astype(np.int64), "mask: expected 0 and 1, got another number"),
        (np.zeros((3, 21), np.float32), "mask: expected BOOL or integers, got F32"),
    ],
)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_masks_that_attnctl_refuses(
    server: Server, attnctl_binary: str, tmp_path: pathlib.Path, mask: Any, words: str, layout: str
) -> None:
    arrays = {name: x if layout == "bhsd" else x.swapaxes(1, 2) for name, x in zip("qkv", tensors(**SIZES))}
    safetensors_files.write(tmp_path / "in", {**arrays, "mask": mask})
    flags = ["--bias=none", "--key_mask=mask", f"--layout={layout}", f"--server={server.tcp}"]
    files = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}"]
    said = subprocess.run([attnctl_binary, "attend", *flags, *files], check=False, capture_output=True, text=True)
    assert said.returncode == 1
    assert words in said.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", [None, "t5-tiny"])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize(
    "sizes", [{"batch": 9, "queries": 96, "keys": 203}, {"batch": 3, "queries": 400, "kv_heads": 2}]
)
def test_pieces_give_the_same_bits(
    server: Server, monkeypatch: pytest.MonkeyPatch, sizes: Dict[str, Any], layout: str, model: Any
) -> None:
    q, k, v = tensors(**sizes)
    batch, keys, random = q.shape[0], k.shape[2], np.random.default_rng(1)
    options = {
        "query_offsets": random.integers(-5, keys, batch),
        "key_starts": random.integers(0, keys // 2, batch),
        "key_mask": random.random((batch, keys)) < 0.7,
        "mask": "causal",
        "window_left": keys // 2,
        "window_right": keys // 3,
        "prefix_lengths": random.integers(0, keys, batch),
        "key_bias": random.normal(size=(q.shape[1], keys)).astype(np.float32),
    }
    if layout == "bshd":
        q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v))
    request = attnd.ComputeRequest(q, k, v, model, layout=layout, return_log_sum_exp=True, **options)
    with attnd.Client(server.tcp) as client:
        in_pieces = client.compute(request)
        monkeypatch.setattr("attnd._pieces.PIECE_BYTES", 1 << 40)
        whole = client.compute(request)
    with attnd.Client(server.unix) as local:
        (by_local,) = local.compute_many([request])
    for reply in (in_pieces, by_local):
        assert same_bits(reply.output, whole.output)
        assert same_bits(reply.log_sum_exp, whole.log_sum_exp)


def test_asyncio_and_many(server: Server) -> None:
    q, k, v = tensors(**SIZES)
    requests = [
        attnd.ComputeRequest(q, k, v, model, **options) for options in CASES.values() for model in (None, "t5-tiny")
    ]
    with attnd.Client(server.tcp) as client:
        expected = [client.compute(request).output for request in requests]

    async def main() -> None:
        for target, options in DOORS.values():
            if options != {"shared_memory": False}:
                async with attnd.AsyncClient(getattr(server, target), **options) as client:
                    found = await client.attend_many(requests)
                    assert all(map(same_bits, found, expected))
                    one = await client.attend(q, k, v, None, **CASES["all"])
                    assert same_bits(one, expected[-2])

    asyncio.run(main())
    for target, options in DOORS.values():
        with attnd.Client(getattr(server, target), **options) as client:
            assert all(map(same_bits, client.attend_many(requests), expected))


def test_key_bits_that_fill_a_datagram_go_by_grpc(server: Server) -> None:
    keys = 600_000
    mask = np.arange(keys)[None] % 3 > 0
    q, k, v = tensors(heads=1, queries=1, keys=keys, dim=1)
    request = attnd.ComputeRequest(q, k, v, None, key_mask=mask)
    small = attnd.ComputeRequest(*tensors(), "t5-tiny")

    async def later() -> Any:
        async with attnd.AsyncClient(server.unix) as client:
            await client.compute(small)
            return await client.compute(request)

    with attnd.Client(server.tcp) as plain, attnd.Client(server.unix) as client:
        expected = plain.attend(q, k, v, None, key_mask=mask)
        assert client.compute(small).transport == "local"
        for reply in (client.compute(request), asyncio.run(later())):
            assert reply.transport == "shared_memory"
            assert same_bits(reply.output, expected)
        assert client.compute(small).transport == "local"


MASKS: Dict[str, Any] = {
    "bool": KEY_MASK,
    "integers": KEY_MASK.astype(np.int64),
    "bytes": KEY_MASK.astype(np.uint8),
    "big-endian": KEY_MASK.astype(">i4"),
    "by columns": np.asfortranarray(KEY_MASK),
    "every second": np.repeat(KEY_MASK, 2, axis=1)[:, ::2],
    "memoryview": memoryview(np.ascontiguousarray(KEY_MASK)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_arrays_that_are_masks(kind: str) -> None:
    expected = np.packbits(KEY_MASK, axis=1, bitorder="little").tobytes()
    assert _masks.key_bits(MASKS[kind], BATCH, KEYS) == expected


def test_one_row_for_all_sequences() -> None:
    assert _masks.key_bits(np.broadcast_to(KEY_MASK[:1], (2, KEYS)), 2, KEYS) == 2 * _masks.key_bits(
        KEY_MASK[:1], 1, KEYS
    )


def test_torch_masks() -> None:
    torch = pytest.importorskip("torch")
    expected = _masks.key_bits(KEY_MASK, BATCH, KEYS)
    for dtype in (torch.bool, torch.uint8, torch.int32, torch.int64):
        assert _masks.key_bits(torch.from_numpy(KEY_MASK).to(dtype), BATCH, KEYS) == expected
    assert _masks.key_bits(torch.from_numpy(KEY_MASK.T.copy()).T, BATCH, KEYS) == expected
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(attnd.InvalidArgument) as caught:
            _masks.key_bits(torch.zeros(BATCH, KEYS, dtype=dtype), BATCH, KEYS)
        assert str(caught.value) == f"key_mask.dtype: expected bool, or integers that are 0 or 1, got {dtype}"
    with pytest.raises(attnd.InvalidArgument, match="to_dense"):
        _masks.key_bits(torch.from_numpy(KEY_MASK).to_sparse(), BATCH, KEYS)
    with pytest.raises(attnd.InvalidArgument, match="CPU"):
        _masks.key_bits(torch.zeros(BATCH, KEYS, dtype=torch.bool, device="meta"), BATCH, KEYS)


def test_jax_masks() -> None:
    jnp = pytest.importorskip("jax.numpy")
    expected = _masks.key_bits(KEY_MASK, BATCH, KEYS)
    for dtype in (bool, np.int32):
        assert _masks.key_bits(jnp.asarray(KEY_MASK.astype(dtype)), BATCH, KEYS) == expected
    with pytest.raises(attnd.InvalidArgument, match="integers that are 0 or 1, got float32"):
        _masks.key_bits(jnp.zeros((BATCH, KEYS)), BATCH, KEYS)


def test_a_mask_without_a_false_key_is_not_sent() -> None:
    q, k, v = tensors(**SIZES)
    for mask in (np.ones((BATCH, KEYS), bool), np.ones((BATCH, KEYS), np.int64)):
        assert Call(attnd.ComputeRequest(q, k, v, "m", key_mask=mask)).small().key_bits == b""
    assert len(Call(attnd.ComputeRequest(q, k, v, "m", key_mask=KEY_MASK)).small().key_bits) == BATCH * 3


REFUSED: Dict[str, Tuple[Dict[str, Any], str]] = {
    "a window behind the query": ({"window_left": -1}, "window_left: expected 0 to 2147483647, got -1"),
    "a window that is too wide": ({"window_right": 2**31}, "window_right: expected 0 to 2147483647, got 2147483648"),
    "too few prefixes": (
        {"mask": "causal", "prefix_lengths": [1]},
        "prefix_lengths: expected none or 3 (batch) values, got 1 values",
    ),
    "a prefix that is too long": (
        {"mask": "causal", "prefix_lengths": [1, 22, 0]},
        "prefix_lengths[1]: expected 0 to 21, got 22",
    ),
    "a key bias of another shape": (
        {"key_bias": KEY_BIAS.T.copy()},
        "key_bias: expected sizes [8, 21] (heads, keys), got sizes [21, 8]",
    ),
    "a key bias of halves": ({"key_bias": np.zeros((8, 21), np.float16)}, "key_bias.dtype: expected float32, got"),
    "an infinite key bias": (
        {"key_bias": np.where(np.arange(KEYS) == 2, np.inf, KEY_BIAS).astype(np.float32)},
        "key_bias[0, 2]: expected a finite number, got inf",
    ),
    "too few offsets": ({"query_offsets": [0]}, "query_offsets: expected none or 3 (batch) values, got 1 values"),
    "an offset too low": (
        {"query_offsets": [0, -13, 0]},
        "query_offsets[1]: expected -12 to 2147483635, got -13",
    ),
    "an offset too high": (
        {"query_offsets": [0, 0, 2**31 - 12]},
        "query_offsets[2]: expected -12 to 2147483635, got 2147483636",
    ),
    "offsets beside an offset": (
        {"query_offsets": [0, 0, 0], "query_offset": 0},
        "query_offsets: expected none beside query_offset, got 3 values",
    ),
    "one offset for all": ({"query_offsets": 3}, "query_offsets: expected none or 3 (batch) values, got 3"),
    "a start too late": ({"key_starts": [0, 0, 22]}, "key_starts[2]: expected 0 to 21, got 22"),
    "a negative start": ({"key_starts": [-1, 0, 0]}, "key_starts[0]: expected 0 to 21, got -1"),
    "a start that is none": ({"key_starts": [0, 1.5, 0]}, "key_starts[1]: expected a whole number, got 1.5"),
    "too few starts": ({"key_starts": np.zeros(2, int)}, "key_starts: expected none or 3 (batch) values, got 2 values"),
    "a mask to be added": (
        {"key_mask": np.zeros((3, 21), np.float32)},
        "key_mask.dtype: expected bool, or integers that are 0 or 1, got float32",
    ),
    "a mask of queries": (
        {"key_mask": np.ones((3, 12), bool)},
        "key_mask: expected sizes [3, 21] (batch, keys), got sizes [3, 12]",
    ),
    "a mask of 4 axes": (
        {"key_mask": np.ones((3, 1, 1, 21), bool)},
        "key_mask: expected sizes [3, 21] (batch, keys), got sizes [3, 1, 1, 21]",
    ),
    "a mask of other numbers": (
        {"key_mask": np.arange(63).reshape(3, 21)},
        "key_mask[0, 2]: expected 0 or 1, got 2",
    ),
    "a negative mask": ({"key_mask": -KEY_MASK.astype(np.int8)}, "key_mask["),
    "a list": ({"key_mask": [[1] * 21] * 3}, "key_mask: expected an array "),
    "a masked array": (
        {"key_mask": np.ma.ones((3, 21), bool)},
        "key_mask: expected an array without a mask of its own",
    ),
    "a table without a model": (
        {"model": None, "table": "encoder"},
        "table: expected none without a model, got 'encoder'",
    ),
    "a version without a model": ({"model": None, "version": 1}, "version: expected none without a model, got 1"),
    "a first head without a model": (
        {"model": None, "first_head": 0},
        "first_head: expected none without a model, got 0",
    ),
    "an empty model": ({"model": ""}, "model: expected the name of a loaded model, got an empty name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_sent(case: str) -> None:
    options, message = REFUSED[case]
    options = dict(options)
    model = options.pop("model", "t5-tiny")
    with attnd.Client("127.0.0.1:1") as client, pytest.raises(attnd.InvalidArgument) as caught:
        client.attend(*tensors(**SIZES), model, **options)
    assert str(caught.value).startswith(message)


def test_what_is_shown() -> None:
    q = np.zeros((1, 8, 16, 64), np.float32)
    shown = repr(attnd.ComputeRequest(q, q, q, None, key_starts=[2], key_mask=np.ones((1, 16), bool)))
    assert shown.endswith("v float32 (1, 8, 16, 64), key_mask bool (1, 16); None, key_starts=[2])")


SEGMENTS: Dict[str, Tuple[Any, Any]] = {
    "as the queries": ([0, 5, 6, 12, 24, 30], None),
    "keys of their own": (np.array([0, 4, 12, 23, 24]), [0, 20, 21, 40, 42]),
    "one a row": ((0, 12, 24), (0, 21, 42)),
}


def split(starts: Any, length: int) -> List[Tuple[int, int, int]]:
    """The row, begin and end of each sequence."""
    found = []
    for i, start in enumerate(starts):
        row_end = (start // length + 1) * length
        end = min(starts[i + 1], row_end) if i + 1 < len(starts) else row_end
        found.append((start // length, start % length, end - start // length * length))
    return found


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("model", [None, "t5-tiny"])
@pytest.mark.parametrize("mask", ["causal", "none"])
@pytest.mark.parametrize("case", SEGMENTS)
def test_packed_sequences_are_those_alone(client: attnd.Client, case: str, mask: str, model: Any, layout: str) -> None:
    queries, keys = SEGMENTS[case]
    sizes = {**SIZES, "keys": QUERIES if keys is None else KEYS}
    q, k, v = tensors(**sizes)
    sent = [x if layout == "bhsd" else np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v)]
    output, lse = client.attend(
        *sent,
        model,
        mask=mask,
        layout=layout,
        query_segments=queries,
        key_segments=keys,
        window_left=9,
        return_log_sum_exp=True,
    )
    if layout == "bshd":
        output = output.swapaxes(1, 2)
    of_queries = split(list(queries), QUERIES)
    of_keys = of_queries if keys is None else split(list(keys), KEYS)
    for (b, first, last), (_, key, last_key) in zip(of_queries, of_keys):
        one = (q[b : b + 1, :, first:last], k[b : b + 1, :, key:last_key], v[b : b + 1, :, key:last_key])
        alone, alone_lse = client.attend(*one, model, mask=mask, window_left=9, return_log_sum_exp=True)
        assert np.abs(output[b, :, first:last] - alone[0]).max() < 1e-5
        assert np.allclose(lse[b, :, first:last], alone_lse[0], atol=1e-5)


@pytest.mark.parametrize("model", [None, "t5-tiny"])
def test_sequences_that_share_keys(client: attnd.Client, model: Any) -> None:
    q, k, v = tensors(**SIZES)
    rows = [1, 0, 1]
    shared = client.attend(q, k[:2], v[:2], model, kv_rows=rows, key_lengths=[21, 20, 7])
    alone = client.attend(q, k[rows], v[rows], model, key_lengths=[21, 20, 7])
    assert same_bits(shared, alone)


def test_large_calls_with_places_of_their_own(server: Server) -> None:
    """Not cut into pieces, or by heads alone: the same bits as through shared memory."""
    q, k, v = tensors(batch=4, queries=300)
    packed = [np.ascontiguousarray(x.swapaxes(0, 1).reshape(1, 8, 1200, 64)) for x in (q, k, v)]
    starts = [0, 300, 500, 900]
    with attnd.Client(server.tcp) as tcp, attnd.Client(server.unix) as local:
        for client in (tcp, local):
            assert same_bits(
                client.attend(q, k[:1], v[:1], "t5-tiny", kv_rows=[0] * 4),
                client.attend(q, *(np.repeat(x[:1], 4, 0) for x in (k, v)), "t5-tiny"),
            )
        assert same_bits(
            tcp.attend(*packed, "t5-tiny", query_segments=starts),
            local.attend(*packed, "t5-tiny", query_segments=starts),
        )
        two = [np.concatenate([x, x]) for x in packed]
        twice = [*starts, *(start + 1200 for start in starts)]
        found = tcp.attend(*two, "t5-tiny", query_segments=twice)
        assert same_bits(found[:1], found[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_segments": [0, 21, 42]}, "key_segments: expected none without query_segments, got 3 values"),
        (
            {"query_segments": [0, 12, 24]},
            "key_segments: expected 3 values, as query_length is not key_length, got none",
        ),
        ({"query_segments": [1], "key_segments": [0]}, "query_segments[0]: expected 0, where row 0 begins, got 1"),
        (
            {"query_segments": [0, 12, 24], "key_segments": [0, 21]},
            "key_segments: expected a sequence in each of 3 rows, got none in row 2",
        ),
        ({"query_segments": [0, 12], "key_segments": [0, 21]}, "query_segments: expected a sequence in each of 3 rows"),
        (
            {"query_segments": [0, 12, 24], "key_segments": [0, 21, 42], "key_lengths": [1, 1, 1]},
            "key_lengths: expected none with query_segments, got 3 values",
        ),
        (
            {"query_segments": [0, 12, 24], "key_segments": [0, 21, 42], "query_offset": 0},
            "query_offset: expected none with query_segments, got 1 values",
        ),
        ({"kv_rows": [0, 1]}, "kv_rows: expected none or 3 (batch) values, got 2 values"),
        ({"kv_rows": [0, 1, 3]}, "kv_rows[2]: expected 0 to 2, got 3"),
    ],
)
def test_places_that_are_refused(options: Dict[str, Any], message: str) -> None:
    with attnd.Client("127.0.0.1:1") as client, pytest.raises(attnd.InvalidArgument) as caught:
        client.attend(*tensors(**SIZES), None, **options)
    assert str(caught.value).startswith(message)
