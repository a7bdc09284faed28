"""Results are those of attnctl, bit for bit, and of third parties within their error."""

from __future__ import annotations

import itertools
import json
import pathlib
import subprocess
from typing import Any, Iterator

import numpy as np
import pytest

import attnd
import safetensors_files
from attnd.v1 import attention_pb2
from conftest import Server
from fake_server import FakeServer, answer_compute, fake  # noqa: F401
from inputs import same_bits, tensors


@pytest.fixture(scope="module", params=["tcp", "unix"])
def client(request: Any, server: Server) -> Iterator[attnd.Client]:
    with attnd.Client(getattr(server, request.param)) as found:
        yield found


def by_attnctl(
    binary: str, server: Server, folder: pathlib.Path, q: Any, k: Any, v: Any, *flags: str
) -> dict[str, Any]:
    safetensors_files.write(folder / "in.safetensors", {"q": q, "k": k, "v": v})
    files = ["--input", str(folder / "in.safetensors"), "--output", str(folder / "out.safetensors")]
    subprocess.run([binary, "attend", "--model=t5-tiny", f"--server={server.tcp}", *files, *flags], check=True)
    return safetensors_files.read(folder / "out.safetensors")[0]


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "plain": ({}, {}, []),
    "one token": ({"queries": 1}, {}, []),
    "decode": ({"queries": 1, "keys": 77}, {}, []),
    "batch": ({"batch": 3, "queries": 33}, {}, []),
    "grouped heads": ({"kv_heads": 2}, {}, []),
    "value dim": ({"dim": 24, "value_dim": 40}, {}, []),
    "no mask": ({}, {"mask": "none"}, ["--mask=none"]),
    "causal encoder": ({}, {"table": "encoder", "mask": "causal"}, ["--table=encoder", "--mask=causal"]),
    "encoder": ({}, {"table": "encoder"}, ["--table=encoder"]),
    "scale": ({}, {"scale": 0.125}, ["--scale=0.125"]),
    "query offset": ({"keys": 40}, {"query_offset": 3}, ["--query_offset=3"]),
    "version": ({}, {"version": 1}, ["--version=1"]),
    "lengths": (
        {"batch": 2},
        {"query_lengths": [3, 16], "key_lengths": np.array([16, 5])},
        ["--query_lengths=3,16", "--key_lengths=16,5"],
    ),
    "float16": ({"dtype": np.float16}, {}, []),
    "float16 to float32": ({"dtype": np.float16}, {"output_dtype": np.float32}, ["--output_dtype=f32"]),
    "float32 to float16": ({}, {"output_dtype": "f16"}, ["--output_dtype=f16"]),
    "bfloat16": ({"dtype": "bfloat16"}, {}, []),
    "bfloat16 to float32": ({"dtype": "bfloat16"}, {"output_dtype": "float32"}, ["--output_dtype=f32"]),
    "float32 to bfloat16": ({"dtype": np.float32}, {"output_dtype": "bf16"}, ["--output_dtype=bf16"]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_same_bits_as_attnctl(
    client: attnd.Client, server: Server, attnctl_binary: str, tmp_path: pathlib.Path, case: str, layout: str
) -> None:
    sizes, options, flags = CASES[case]
    if "bfloat16" in case:
        sizes = {**sizes, "dtype": pytest.importorskip("ml_dtypes").bfloat16} if "dtype" in sizes else sizes
        if case == "float32 to bfloat16":
            sizes = {}
    q, k, v = tensors(**sizes)
    if layout == "bshd":
        q, k, v = (np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in (q, k, v))
    expected = by_attnctl(attnctl_binary, server, tmp_path, q, k, v, f"--layout={layout}", "--lse", *flags)
    output, lse = client.attend(q, k, v, "t5-tiny", layout=layout, return_log_sum_exp=True, **options)
    assert same_bits(output, expected["o"])
    assert same_bits(lse, expected["lse"])


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize(
    "sizes", [{"queries": 700}, {"queries": 400, "batch": 3, "kv_heads": 2}, {"batch": 9, "queries": 96}]
)
def test_pieces_give_the_same_bits(
    client: attnd.Client, monkeypatch: pytest.MonkeyPatch, layout: str, sizes: Any
) -> None:
    with attnd.Client(client.target, shared_memory=False, local_calls=False) as by_grpc:
        check_pieces(by_grpc, monkeypatch, layout, sizes)


def check_pieces(client: attnd.Client, monkeypatch: pytest.MonkeyPatch, layout: str, sizes: Any) -> None:
    q, k, v = tensors(**sizes)
    batch = q.shape[0]
    if layout == "bshd":
        q, k, v = (np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in (q, k, v))
    lengths = [q.shape[2] // 2 if layout == "bhsd" else q.shape[1] // 2] + [q.shape[2 if layout == "bhsd" else 1]] * (
        batch - 1
    )
    request = attnd.ComputeRequest(
        q, k, v, "t5-tiny", layout=layout, query_lengths=lengths, key_lengths=lengths, return_log_sum_exp=True
    )
    # In shared memory nothing is cut.
    with attnd.Client(client.target, local_calls=False, shared_memory=False) as by_grpc:
        sent = count_calls(by_grpc, monkeypatch)
        pieces = by_grpc.compute(request)
        assert len(sent) > 1
        sent.clear()
        monkeypatch.setattr("attnd._pieces.PIECE_BYTES", 1 << 40)
        whole = by_grpc.compute(request)
        assert len(sent) == 1
    assert same_bits(pieces.output, whole.output)
    assert same_bits(pieces.log_sum_exp, whole.log_sum_exp)
    assert pieces.version == whole.version
    assert pieces.content_hash == whole.content_hash
    assert pieces.compute_time > 0


def count_calls(client: attnd.Client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that are called from now on."""
    sent: list[str] = []
    channels = client._core.io.channels  # type: ignore[attr-defined]
    original = channels.unary

    def unary(method: str) -> Any:
        sent.append(method)
        return original(method)

    monkeypatch.setattr(channels, "unary", unary)
    return sent


def test_a_piece_of_all_heads_says_how_many_the_table_has(client: attnd.Client) -> None:
    """Cut or not, a call with fewer heads than the table is refused."""
    q, k, v = tensors(heads=4, queries=1024)
    with pytest.raises(attnd.InvalidArgument, match="heads"):
        client.attend(q, k, v, "t5-tiny")


@pytest.mark.parametrize("queries", [8, 1200])
def test_some_heads(client: attnd.Client, queries: int) -> None:
    q, k, v = tensors(queries=queries)
    whole = client.attend(q, k, v, "t5-tiny")
    part = client.attend(q[:, 2:6], k[:, 2:6], v[:, 2:6], "t5-tiny", first_head=2)
    assert same_bits(part, whole[:, 2:6])


def replaced_during(calls: int) -> Any:
    """Answers as if the model were replaced with each of the first calls."""
    made = itertools.count()

    def answer(request: bytes, context: Any) -> bytes:
        message = attention_pb2.ComputeAttentionResponse.FromString(answer_compute(request, context))
        message.content_hash = str(min(next(made), calls))
        return message.SerializeToString()

    return answer


def test_pieces_of_different_models_are_not_mixed(fake: FakeServer) -> None:  # noqa: F811
    """They are computed again."""
    fake.handlers["ComputeAttention"] = replaced_during(3)
    with attnd.Client(fake.target) as client:
        reply = client.compute(attnd.ComputeRequest(*tensors(queries=1024), "m"))
    assert reply.content_hash == "3"
    assert len(fake.calls) == 2 * 8


def test_a_model_that_is_replaced_all_the_time(fake: FakeServer) -> None:  # noqa: F811
    """The call then travels in one message, which one model answers."""
    fake.handlers["ComputeAttention"] = replaced_during(1000)
    with attnd.Client(fake.target) as client:
        assert client.attend(*tensors(queries=1024), "m").shape == (1, 8, 1024, 64)
    assert len(fake.calls) == 2 * 8 + 1


def test_a_message_beyond_4_mebibytes(client: attnd.Client) -> None:
    """One key/value head of one sequence is not cut."""
    q, k, v = tensors(heads=1, queries=20_000, keys=5)
    output = client.attend(q, k, v, "book", mask="none")
    assert output.nbytes > 4 << 20
    assert same_bits(output[:, :, -9:], client.attend(q[:, :, -9:], k, v, "book", mask="none", query_offset=-4))


def test_product_precision(client: attnd.Client) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    q, k, v = tensors(dtype=bfloat16)
    exact = client.attend(q, k, v, "t5-tiny", product_precision="f32", output_dtype="f32")
    wide = client.attend(*(x.astype(np.float32) for x in (q, k, v)), "t5-tiny")
    assert same_bits(exact, wide)


GOLDEN = sorted(
    path.stem for path in (pathlib.Path(__file__).parents[3] / "tests/golden/attention").glob("*.safetensors")
)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(client: attnd.Client, golden: pathlib.Path, name: str) -> None:
    if name.startswith("bf16"):
        pytest.importorskip("ml_dtypes")
    file, metadata = safetensors_files.read(golden / "attention" / f"{name}.safetensors")
    config = json.loads(metadata["config"])
    rule = attnd.T5Buckets(config["num_buckets"], config["max_distance"], file["relative_attention_bias.weight"])
    client.upload_table("golden", attnd.Table(rule, config["bidirectional"], "decoder"), replace=True)
    q, k, v = file["q"], file["k"], file["v"]
    output = client.attend(
        q,
        k,
        v,
        "golden",
        mask="causal" if config["causal"] else "none",
        scale=config["scale"],
        query_offset=config["q_offset"],
        query_lengths=config["lengths"],
        key_lengths=config["lengths"],
        output_dtype=np.float32,
        product_precision=np.float32,
        window_left=config.get("window_left"),
        window_right=config.get("window_right"),
        prefix_lengths=config.get("prefix_lengths"),
        key_bias=file.get("key_bias"),
    )
    errors = config["max_abs_error_vs_f64"]
    tolerance = 4 * errors.get("hf_eager_fp32", errors.get("torch_fp32")) + 1e-6
    expected = file["o"].astype(np.float64)
    lengths = config["lengths"] or [q.shape[2]] * q.shape[0]
    for b, length in enumerate(lengths):
        error = np.abs(output[b, :, :length] - expected[b, :, :length]).max()
        assert error <= tolerance, name
        assert not output[b, :, length:].any()


def test_trained_model(client: attnd.Client, golden: pathlib.Path) -> None:
    file, _ = safetensors_files.read(golden / "trained" / "t5-tiny_decoder0_512.safetensors")
    output = client.attend(file["q"], file["k"], file["v"], "t5-tiny")
    assert np.abs(output - file["o_hf"]).max() < 1e-4
    wrong = client.attend(file["q"], file["k"], file["v"], "t5-tiny", query_offset=7)
    assert np.abs(wrong - file["o_hf"]).max() > 1e-2


def test_reply(client: attnd.Client) -> None:
    reply = client.compute(attnd.ComputeRequest(*tensors(), "t5-tiny"))
    assert reply.version == 1
    assert reply.content_hash == client.get_model("t5-tiny").content_hash
    assert reply.log_sum_exp is None
    assert reply.queue_time >= 0
    assert 0 < reply.compute_time < 10
    assert reply.transport


def test_many_in_order(client: attnd.Client) -> None:
    requests = [attnd.ComputeRequest(*tensors(queries=1 + i % 7, seed=i), "t5-tiny") for i in range(40)]
    results = client.attend_many(iter(requests))
    assert len(results) == 40
    for request, result in zip(requests, results):
        assert same_bits(result, client.attend(request.q, request.k, request.v, "t5-tiny"))
    pairs = client.attend_many([attnd.ComputeRequest(*tensors(), "t5-tiny", return_log_sum_exp=True)])
    assert pairs[0][1].shape == (1, 8, 16)
    assert client.attend_many([]) == []


def test_many_with_a_failure(client: attnd.Client) -> None:
    good = attnd.ComputeRequest(*tensors(), "t5-tiny")
    bad = attnd.ComputeRequest(*tensors(), "nobody")
    worse = attnd.ComputeRequest([1], None, None, "t5-tiny")
    results = client.compute_many([good, bad, worse, good], return_errors=True)
    assert [type(result).__name__ for result in results] == [
        "ComputeReply",
        "NotFound",
        "InvalidArgument",
        "ComputeReply",
    ]
    with pytest.raises(attnd.NotFound):
        client.attend_many([good, bad, good, good])


def test_many_reads_what_an_iterator_raises(client: attnd.Client) -> None:
    def requests() -> Iterator[attnd.ComputeRequest]:
        yield attnd.ComputeRequest(*tensors(), "t5-tiny")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        client.attend_many(requests())
