"""Every way to a server gives the same bits as attnctl, and the same errors."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys
from functools import partial
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import pytest

import attnd
import safetensors_files
from attnd._host import Host
from conftest import Server
from inputs import DOORS, same_bits, tensors

CASES: Dict[str, Tuple[Dict[str, Any], Dict[str, Any], List[str]]] = {
    "one token": ({"queries": 1}, {}, []),
    "decode": ({"queries": 1, "keys": 77}, {}, []),
    "small": ({"queries": 3, "dim": 8}, {}, []),
    "batch": ({"batch": 3, "queries": 33}, {}, []),
    "large": ({"queries": 300}, {}, []),
    "grouped heads": ({"kv_heads": 2}, {}, []),
    "value dim": ({"dim": 24, "value_dim": 40}, {}, []),
    "no mask": ({}, {"mask": "none"}, ["--mask=none"]),
    "encoder": ({}, {"table": "encoder"}, ["--table=encoder"]),
    "scale and offset": ({"keys": 40}, {"scale": 0.125, "query_offset": 3}, ["--scale=0.125", "--query_offset=3"]),
    "lengths": (
        {"batch": 2},
        {"query_lengths": [3, 16], "key_lengths": [16, 5]},
        ["--query_lengths=3,16", "--key_lengths=16,5"],
    ),
    "float16": ({"dtype": "float16"}, {}, []),
    "float32 to float16": ({}, {"output_dtype": "f16"}, ["--output_dtype=f16"]),
    "bfloat16": ({"dtype": "bfloat16"}, {}, []),
    "bfloat16 to float32": ({"dtype": "bfloat16"}, {"output_dtype": "f32"}, ["--output_dtype=f32"]),
}


def host_of(client: Any) -> Host:
    host: Host = client._core.transports[0]._host
    return host


@pytest.fixture(scope="module", params=DOORS)
def door(request: Any) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def client(door: str, server: Server) -> Iterator[attnd.Client]:
    target, options = DOORS[door]
    with attnd.Client(getattr(server, target), **options) as found:
        assert found.transport == {"tcp": "grpc", "local, all sent": "local"}.get(door, door)
        yield found


@pytest.fixture(scope="module")
def expected(server: Server, attnctl_binary: str, tmp_path_factory: Any) -> Any:
    """What attnctl makes of a case: computed once for all doors."""
    known: Dict[Any, Any] = {}

    def make(case: str, layout: str, arrays: Any) -> Any:
        if (case, layout) not in known:
            folder = tmp_path_factory.mktemp("attnctl")
            safetensors_files.write(folder / "in.safetensors", dict(zip("qkv", arrays)))
            files = ["--input", str(folder / "in.safetensors"), "--output", str(folder / "out.safetensors")]
            flags = ["--model=t5-tiny", f"--server={server.tcp}", f"--layout={layout}", "--lse", *CASES[case][2]]
            subprocess.run([attnctl_binary, "attend", *files, *flags], check=True)
            known[case, layout] = safetensors_files.read(folder / "out.safetensors")[0]
        return known[case, layout]

    return make


def inputs_of(case: str, layout: str) -> Any:
    sizes = dict(CASES[case][0])
    if sizes.get("dtype") == "bfloat16":
        sizes["dtype"] = pytest.importorskip("ml_dtypes").bfloat16
    arrays = tensors(**sizes)
    if layout == "bshd":
        return tuple(np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in arrays)
    return arrays


@pytest.mark.parametrize("placement", ["ordinary", "shared", "with gaps", "transposed"])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_as_attnctl(
    client: attnd.Client, door: str, expected: Any, case: str, layout: str, placement: str
) -> None:
    arrays = inputs_of(case, layout)
    result = expected(case, layout, arrays)
    options = {**CASES[case][1], "layout": layout, "return_log_sum_exp": True}
    if placement == "shared":
        arrays = tuple(in_shared_memory(client, x) for x in arrays)
        options["out"] = client.empty(result["o"].shape, result["o"].dtype)
    elif placement == "with gaps":
        arrays = tuple(np.repeat(x, 2, axis=3)[..., ::2] for x in arrays)
        options["out"] = np.zeros((*result["o"].shape[:3], 2 * result["o"].shape[3]), result["o"].dtype)[..., ::2]
    elif placement == "transposed":
        arrays = tuple(np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in arrays)
    output, log_sum_exp = client.attend(*arrays, "t5-tiny", **options)
    assert same_bits(output, result["o"])
    assert same_bits(log_sum_exp, result["lse"])
    if "out" in options:
        assert output is options["out"]


def in_shared_memory(client: Any, array: Any) -> Any:
    found = client.empty(array.shape, array.dtype)
    found[...] = array
    return found


@pytest.mark.parametrize("door", [name for name in DOORS if name != "local, all sent"])
def test_asyncio_gives_the_same_bits(server: Server, door: str) -> None:
    target, options = DOORS[door]
    calls = [tensors(queries=n, batch=1 + n % 3, seed=n) for n in (1, 3, 16, 200)]
    with attnd.Client(server.tcp) as client:
        expected = [client.attend(*call, "t5-tiny", return_log_sum_exp=True) for call in calls]

    async def main() -> None:
        async with attnd.AsyncClient(getattr(server, target), **options) as client:
            for shared in (False, True):
                made = [tuple(in_shared_memory(client, x) if shared else x for x in call) for call in calls]
                found = [client.attend(*call, "t5-tiny", return_log_sum_exp=True) for call in made]
                for one, other in zip(await asyncio.gather(*found), expected):
                    assert same_bits(one[0], other[0])
                    assert same_bits(one[1], other[1])
            reply = await client.compute(attnd.ComputeRequest(*calls[2], "t5-tiny"))
            assert reply.transport == client.transport == {"tcp": "grpc"}.get(door, door)

    asyncio.run(main())


@pytest.mark.parametrize("door", ["local", "shared_memory"])
def test_arrays_of_empty_are_not_copied(server: Server, door: str) -> None:
    with attnd.Client(server.unix, **DOORS[door][1]) as client:
        stager = host_of(client).stager
        q, k, v = (in_shared_memory(client, x) for x in tensors(queries=200))
        out = client.empty(q.shape)
        reply = client.compute(attnd.ComputeRequest(q, k, v, "t5-tiny", out=out))
        assert reply.transport == door
        assert reply.output is out
        assert (stager.copied_in, stager.copied_out) == (0, 0)
        # A view of whole sequences has no gaps, and small tensors may be sent beside shared ones.
        client.attend(q[:, 2:6], k[:, 2:6], v[:, 2:6], "t5-tiny", first_head=2, out=out[:, 2:6])
        assert (stager.copied_in, stager.copied_out) == (0, 0)
        # What lies elsewhere is copied once, and so is a new output.
        client.attend(q, k, np.array(v), "t5-tiny", out=out)
        assert (stager.copied_in, stager.copied_out) == (v.nbytes, 0)
        client.attend(q, k, v, "t5-tiny")
        assert (stager.copied_in, stager.copied_out) == (v.nbytes, v.nbytes)


def test_torch_tensors_over_shared_memory_are_not_copied(server: Server) -> None:
    torch = pytest.importorskip("torch")
    with attnd.Client(server.unix) as client:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            q, k, v, out = (client.empty((1, 8, 64, 64), dtype) for _ in range(4))
            assert type(q) is torch.Tensor
            assert q.dtype == dtype
            for x in (q, k, v):
                x.copy_(torch.randn(x.shape))
            expected = client.attend(q.clone(), k.clone(), v.clone(), "t5-tiny")
            before = host_of(client).stager.copied_in
            assert client.attend(q, k, v, "t5-tiny", out=out) is out
            assert torch.equal(out, expected)
            assert host_of(client).stager.copied_in == before
        over_numpy = torch.from_numpy(client.empty((1, 8, 64, 64)))
        client.attend(over_numpy, over_numpy, over_numpy, "t5-tiny", out=client.empty((1, 8, 64, 64), kind="torch"))
        assert host_of(client).stager.copied_in == before


def test_an_output_over_its_inputs(client: attnd.Client) -> None:
    q, k, v = tensors(queries=40)
    expected = client.attend(q, k, v, "t5-tiny")
    for where in (np.array, partial(in_shared_memory, client)):
        mine = where(q)
        assert client.attend(mine, k, v, "t5-tiny", out=mine) is mine
        assert same_bits(mine, expected)


BAD: Dict[str, Dict[str, Any]] = {
    "no such model": {"model": "nobody"},
    "no such version": {"version": 77},
    "no such table": {"table": "nothing"},
    "heads that the table lacks": {"heads": 3},
    "first head beyond the table": {"first_head": 5},
}


@pytest.mark.parametrize("case", BAD)
def test_the_same_errors(client: attnd.Client, server: Server, case: str) -> None:
    options = dict(BAD[case])
    q, k, v = tensors(heads=options.pop("heads", 8))
    model = options.pop("model", "t5-tiny")

    def error_of(one: attnd.Client, *arrays: Any) -> Any:
        with pytest.raises(attnd.Error) as caught:
            one.attend(*arrays, model, **options)
        error = caught.value
        return type(error), error.message, error.field, error.expected, error.got

    with attnd.Client(server.tcp) as plain:
        expected = error_of(plain, q, k, v)
    assert expected[2] != ""
    assert error_of(client, q, k, v) == expected
    assert error_of(client, *(in_shared_memory(client, x) for x in (q, k, v))) == expected


def test_metadata_goes_by_grpc(server: Server) -> None:
    q, k, v = tensors()
    with attnd.Client(server.unix) as client:
        reply = client.compute(attnd.ComputeRequest(q, k, v, "t5-tiny"), metadata={"x": "y"})
        assert reply.transport == "shared_memory"
        assert client.compute(attnd.ComputeRequest(q, k, v, "t5-tiny")).transport == "local"


@pytest.mark.parametrize(
    ("flags", "transport"),
    [(["--nolocal_calls"], "shared_memory"), (["--noshared_memory"], "local"), ([], "local")],
)
def test_what_the_server_offers(make_server: Any, flags: List[str], transport: str) -> None:
    server = make_server(*flags)
    q, k, v = tensors()
    large = tensors(queries=300)
    with attnd.Client(server.tcp) as plain, attnd.Client(server.unix) as client:
        assert client.server_info().local_calls == (flags != ["--nolocal_calls"])
        assert client.transport == transport
        assert same_bits(client.attend(q, k, v, "t5-tiny"), plain.attend(q, k, v, "t5-tiny"))
        reply = client.compute(attnd.ComputeRequest(*large, "t5-tiny"))
        assert reply.transport == ("grpc" if flags == ["--noshared_memory"] else transport)
        assert same_bits(reply.output, plain.attend(*large, "t5-tiny"))


def test_no_socket_for_memory_and_calls(make_server: Any) -> None:
    server = make_server()
    pathlib.Path(f"{server.socket}.shm").unlink()
    with attnd.Client(server.unix) as client:
        assert client.transport == "grpc"
        assert client.attend(*tensors(), "t5-tiny").shape == (1, 8, 16, 64)
        assert client.empty(3).shape == (3,)


@pytest.mark.parametrize(
    ("shape", "dtype", "field"),
    [
        (-1, "f32", "shape"),
        ((2, "x"), "f32", "shape"),
        (None, "f32", "shape"),
        (1, "int8", "dtype"),
        (1, None, "dtype"),
    ],
)
def test_empty_refuses(client: attnd.Client, shape: Any, dtype: Any, field: str) -> None:
    with pytest.raises(attnd.InvalidArgument) as caught:
        client.empty(shape, dtype)
    assert caught.value.field == field


def test_empty(client: attnd.Client) -> None:
    assert client.empty(5, np.float16).dtype == np.float16
    assert client.empty((0, 3)).shape == (0, 3)
    assert client.empty(()).shape == ()
    assert not client.empty((1 << 20,)).any()
    with pytest.raises(attnd.InvalidArgument, match="kind"):
        client.empty(1, kind="list")
    with pytest.raises(attnd.ResourceExhausted):
        client.empty(1 << 60)


def test_torch_is_not_imported_by_the_package() -> None:
    code = "import sys, attnd; assert not {'torch', 'jax', 'ml_dtypes', 'attnd._host'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
