"""Comparisons of biases: those of attnctl byte for byte, and the values that the server has."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import xml.etree.ElementTree
from typing import Any, Iterator

import numpy as np
import pytest

import attnd
from attnd._bias_rules import first_distances, paper_slopes, random_values
from attnd._hf_log_table import DECISIVE
from attnd._number_text import shortest
from conftest import ROOT, Server

OTHERS = {
    "tables": {
        "decoder.0": {"rule": "alibi", "slopes": [0.5, 0.25]},
        "encoder": {"rule": "per_offset", "min_offset": -1, "values": [[0, 1, 2], [3, 4, 5]]},
        "encoder.1": {"rule": "t5", "nb": 3, "dist_max": 9, "bidirectional": True, "values": [[1, 2]] * 4},
    }
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[attnd.Client]:
    with attnd.Client(server.tcp) as found:
        yield found


def attnctl(binary: str, server: str, sources: list[str], options: dict[str, Any], form: str = "text") -> Any:
    flags = [f"--{name}={','.join(map(str, v)) if isinstance(v, list) else v}" for name, v in options.items()]
    words = [binary, "bias", "compare", f"--server={server}", f"--format={form}", *flags, "--", *sources]
    return subprocess.run(words, capture_output=True, text=True, check=False)


CASES: list[tuple[list[str], dict[str, Any]]] = [
    (["alibi:8", "t5:32,128"], {}),
    (["t5-tiny", "alibi:8"], {"trained_length": 512}),
    (["t5-tiny#1", "alibi:8#3", "t5:32,128"], {"trained_length": 128}),
    (["model:t5-tiny:encoder", "alibi:8,bidirectional"], {"trained_length": 128, "axis": "linear"}),
    (["alibi:12", "t5:32,128,heads=12", "t5:16,64,heads=12,seed=3"], {"axis": "linear"}),
    (
        [
            "alibi:16",
            "t5:32,128,heads=16,bidirectional",
            "offsets:-3@1,2,1.5,1,0.5,0.2,0",
            "t5:4,5@.1,2e-1,-0,1e-30",
            "alibi:5",
        ],
        {"trained_length": 100},
    ),
    (["t5-tiny", "alibi:4"], {"heads": [7, 0, 1], "mask": "none"}),
    (["t5:7,90,bidirectional", "t5:64,5000"], {"mask": "causal", "max_offset": 9000, "trained_length": 9001}),
    (["offsets:5@1e30,-1e30,3", "offsets:0,heads=2@1,2,3,4"], {}),
    (["book", "alibi:1"], {"max_offset": 1}),
    (["alibi:3"], {"max_offset": 50, "axis": "log", "trained_length": 50}),
    ([f"offsets:-40@{','.join(str(i * i % 17) for i in range(150))}"], {"trained_length": 64}),
    (["t5:256,4096,heads=2,seed=18446744073"], {"max_offset": 20000}),
]


@pytest.mark.parametrize(("sources", "options"), CASES)
def test_a_comparison_is_attnctls(
    client: attnd.Client, server: Server, attnctl_binary: str, sources: list[str], options: dict[str, Any]
) -> None:
    compared = attnd.compare_bias(sources, client=client, **options)
    for form, shown in (("text", compared.text()), ("svg", compared.svg()), ("json", compared.to_json())):
        made = attnctl(attnctl_binary, server.tcp, sources, options, form)
        assert made.stderr == ""
        assert shown == made.stdout
    json.loads(compared.to_json())
    assert xml.etree.ElementTree.fromstring(compared.svg()).tag == "{http://www.w3.org/2000/svg}svg"


WORDS = (
    "alibi:0 alibi:-1 alibi:4097 alibi:9999999999999999999 alibi: alibi:8,heads=2 alibi:8,seed=1 alibi:8@1,2 "
    "alibi:8#8 alibi:8# alibi:8#x t5:4 t5:x,5 t5:1,5 t5:-4,5 t5:3,5,bidirectional t5:4,2 t5:5,2 "
    "t5:32,999999999999999999 t5:999999999999999999,5 t5:32,128,heads=0 t5:32,128,seed=-1 t5:32,128,random "
    "t5:4,5@0.1,0.2 t5:4,5@ t5:4,5@1,2,nan,4 t5:4,5@1,2,3,1e39 t5:4,5@1,2,3,0x4 t5:4,5,seed=1@1,2,3,4 "
    "t5:encoder offsets:0 offsets:0,heads=2@1,2,3 offsets:99999999999@1 offsets:0,bidirectional@1 book:3 "
    "t5:64,10000000000,heads=1 t5:4,5@1,2,\x07 alibi:\u00e9\u00e9"
)

REFUSED: list[tuple[list[str], dict[str, Any]]] = [
    *(([source], {}) for source in WORDS.split(" ")),
    ([""], {}),
    (["t5:4,5@" + "1" * 500], {}),
    ([f"offsets:0@{'x' * 500}"], {}),
    (["alibi:1"] * 9, {}),
    (["alibi:512"], {}),
    (["alibi:8"], {"heads": [8]}),
    (["alibi:8"], {"heads": [-1]}),
    (["alibi:8"], {"max_offset": 0}),
    (["alibi:8"], {"max_offset": 1 << 21}),
    (["alibi:8"], {"trained_length": 0}),
    (["alibi:64"], {"max_offset": 1 << 20}),
    (["book:encoder"], {}),
    (["nobody"], {}),
]


@pytest.mark.parametrize(("sources", "options"), REFUSED)
def test_a_refusal_is_attnctls(
    client: attnd.Client, server: Server, attnctl_binary: str, sources: list[str], options: dict[str, Any]
) -> None:
    with pytest.raises((attnd.InvalidArgument, attnd.NotFound, attnd.ResourceExhausted)) as caught:
        attnd.compare_bias(sources, client=client, **options)
    made = attnctl(attnctl_binary, server.tcp, sources, options)
    assert made.returncode in (1, 2, 4)
    said = made.stderr.splitlines()[0].replace("attnctl: ", "", 1)
    assert str(caught.value) == said.replace("--", "", said.startswith("--"))


def test_values_are_the_servers(client: attnd.Client) -> None:
    for table, mask in (("decoder", None), ("encoder", None), ("decoder", "none")):
        compared = attnd.compare_bias(["t5-tiny:" + table], client=client, mask=mask)
        count = len(compared.offsets)
        # One query sees the offsets in descending order.
        start = count - int(compared.offsets[-1])
        window = client.bias(
            "t5-tiny",
            queries=1,
            keys=count,
            query_start=count,
            key_start=start,
            table=table,
            mask="none",
            heads=list(range(8)),
        )
        assert np.array_equal(window.offsets[0][::-1], compared.offsets)
        assert np.array_equal(window.values[:, 0, ::-1], compared.values[0])
        assert compared.sources[0].buckets is not None
        assert np.array_equal(window.buckets[0][::-1], compared.sources[0].buckets)


def test_tables_of_ones_own(tmp_path: pathlib.Path, server: Server, attnctl_binary: str) -> None:
    table = attnd.Table(attnd.T5Buckets(4, 5, [[0.1, 1], [0.2, 2], [0.3, 3], [0.4, 4]]))
    compared = attnd.compare_bias([table, ("mine", table), attnd.Table(attnd.AlibiSlopes([0.5, 0.25]), True)])
    assert [source.source for source in compared.sources][1] == "mine"
    assert compared.sources[0].source.startswith("Table(decoder: T5, 4 buckets")
    words = attnd.compare_bias(["t5:4,5,heads=2@.1,1,.2,2,.3,3,.4,4"])
    assert np.array_equal(compared.values[0, :, compared.offsets >= 0], words.values[0].T)
    assert np.isnan(compared.values[0, :, compared.offsets < 0]).all()
    assert np.array_equal(compared.values[2, 0], -0.5 * np.abs(compared.offsets))

    path = tmp_path / "others.json"
    path.write_text(json.dumps(OTHERS))
    sources = [f"file:{path}", f"file:{path}:encoder", f"file:{path}:encoder.1#1"]
    assert attnd.compare_bias(sources).text() == attnctl(attnctl_binary, server.tcp, sources, {}).stdout
    with pytest.raises(attnd.NotFound, match=r"decoder\.7"):
        attnd.compare_bias([f"file:{path}:decoder.7"])
    with pytest.raises(attnd.NotFound, match="No such file"):
        attnd.compare_bias([f"file:{tmp_path / 'absent.json'}"])
    with pytest.raises(attnd.InvalidArgument, match=r"path: expected a \.json file"):
        attnd.compare_bias([f"file:{tmp_path}"])
    for text in ("{", "[]", '{"tables": {"decoder": {"rule": "t5"}}}', '{"tables": {"decoder": {"rule": "sine"}}}'):
        path.write_text(text)
        with pytest.raises(attnd.InvalidArgument, match="expected"):
            attnd.compare_bias([f"file:{path}"])


def test_refusals_of_python_arguments(client: attnd.Client) -> None:
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([3], {}, "sources"),
        ([("a", 3)], {}, "sources"),
        ([], {}, "sources"),
        (["t5-tiny"], {}, "client"),
        (["t5-tiny"], {"client": "127.0.0.1"}, "client"),
        (["alibi:8"], {"axis": "square"}, "axis"),
        (["alibi:8"], {"mask": "all"}, "mask"),
        (["alibi:8"], {"heads": ["a"]}, "heads"),
        (["alibi:8"], {"max_offset": 1.5}, "max_offset"),
        ([attnd.Table(attnd.AlibiSlopes([]))], {}, "heads"),
        ([attnd.Table(attnd.AlibiSlopes([np.nan]))], {}, "slopes"),
        ([attnd.Table(attnd.T5Buckets(4, 5))], {}, "values"),
        ([("x", attnd.Table(attnd.T5Buckets(4, 5, np.zeros((3, 2)))))], {}, "x: values"),
        ([attnd.Table("decoder", heads=3)], {}, "rule"),
    ]
    for sources, options, field in cases:
        with pytest.raises(attnd.InvalidArgument) as caught:
            attnd.compare_bias(sources, **options)
        assert caught.value.field == field
        assert isinstance(caught.value, ValueError)

    async def asynchronous() -> None:
        async with attnd.AsyncClient(client.target) as other:
            with pytest.raises(attnd.InvalidArgument, match=r"client: expected an attnd\.Client, got a AsyncClient"):
                attnd.compare_bias(["t5-tiny"], client=other)

    import asyncio

    asyncio.run(asynchronous())


def test_in_a_notebook() -> None:
    compared = attnd.compare_bias("t5:32,128")
    assert compared._repr_svg_() == compared.svg()
    assert compared._repr_html_().startswith(compared.svg())
    assert "<pre>bias by offset" in compared._repr_html_()
    assert str(compared) == compared.text()
    assert repr(compared) == "BiasComparison(t5:32,128: 1 heads, offsets 0 to 512)"


def test_the_logarithm_is_the_servers() -> None:
    """The table of exceptions is a copy of the C++ library's; buckets are Hugging Face's."""
    table = (ROOT / "src" / "bias" / "hf_log_table.inc").read_text()
    assert tuple(int(word, 16) for word in re.findall(r"0x[0-9A-F]{8}", table)) == DECISIVE
    golden = json.loads((ROOT / "tests" / "golden" / "bucket_edges.json").read_text())
    for buckets, max_distance, edges in golden["configs"]:
        assert first_distances(buckets, max_distance)[buckets - len(edges) :] == edges, (buckets, max_distance)


def test_slopes_are_the_papers() -> None:
    def papers(heads: int) -> list[float]:
        """get_slopes of the paper's code."""
        power = 1 << (heads.bit_length() - 1)
        start: float = 2 ** (-(2 ** -(np.log2(power) - 3)))
        slopes = [start * start**i for i in range(power)]
        return slopes if power == heads else slopes + papers(2 * power)[0::2][: heads - power]

    for heads in (1, 2, 3, 8, 12, 16, 71):
        assert np.array_equal(paper_slopes(heads), np.array(papers(heads), np.float32))


def test_random_values_are_uniform() -> None:
    values = random_values(20000, 3).astype(float)
    assert values.min() >= -1
    assert values.max() < 1
    # Of uniform numbers the mean has a standard error of 1 / sqrt(3 n).
    assert abs(values.mean()) < 5 / np.sqrt(3 * 20000)
    assert len(np.unique(values)) > 19900


def test_shortest_gives_the_same_float_again() -> None:
    bits = np.random.RandomState(0).randint(0, 1 << 32, 20000, np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    for value in values[np.isfinite(values)]:
        assert np.float32(shortest(value)) == value
    assert [shortest(np.float32(x)) for x in (0.1, -0.0, 1e-5, 1e16, 12.5)] == ["0.1", "0", "1e-05", "1e+16", "12.5"]
