"""Models, tables, bias windows and the server's facts."""

from __future__ import annotations

import datetime
import json
import pathlib
import re
import subprocess
import xml.etree.ElementTree
from typing import Any, Callable, Iterator

import numpy as np
import pytest

import attnd
from conftest import Server


@pytest.fixture
def client(make_server: Callable[..., Server], tmp_path: pathlib.Path) -> Iterator[attnd.Client]:
    (tmp_path / "root").mkdir()
    with attnd.Client(make_server(f"--model_root={tmp_path / 'root'}").tcp) as found:
        yield found


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[attnd.Client]:
    with attnd.Client(server.tcp) as found:
        yield found


def test_describe(shared: attnd.Client) -> None:
    model = shared.get_model("t5-tiny", include_values=True)
    assert (model.name, model.version, model.heads, model.source) == ("t5-tiny", 1, 8, "embedded")
    assert len(model.content_hash) == 64
    age = datetime.datetime.now(datetime.timezone.utc) - model.loaded_at
    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)
    decoder, encoder = model.tables["decoder"], model.tables["encoder"]
    assert (decoder.bidirectional, encoder.bidirectional) == (False, True)
    assert isinstance(decoder.rule, attnd.T5Buckets)
    assert decoder.rule.num_buckets == 32
    assert decoder.rule.values.shape == (32, 8)
    assert decoder.rule.values.dtype == np.float32
    assert shared.get_model("t5-tiny").tables["decoder"].rule.values is None
    assert {"book", "t5-tiny"} <= {model.name for model in shared.list_models()}


def test_all_pages(client: attnd.Client) -> None:
    table = attnd.Table(attnd.AlibiSlopes(np.ones(1, np.float32)))
    for i in range(205):
        client.upload_table(f"m{i:03}", table)
    names = [model.name for model in client.list_models()]
    assert len(names) == 207
    assert names == sorted(names)


def test_models_that_the_start_could_not_load(make_server: Callable[..., Server], tmp_path: pathlib.Path) -> None:
    root = tmp_path / "root"
    good = root / "models--org--name" / "snapshots" / "abc"
    good.mkdir(parents=True)
    (root / "broken.json").write_text("{")
    with attnd.Client(make_server(f"--model_root={root}").tcp) as client:
        failed = {model.name: model for model in client.list_failed_models()}
        assert sorted(failed) == ["broken", "org/name"]
        assert failed["org/name"].path == "models--org--name"
        assert "no config.json" in failed["org/name"].reason
        (good / "tables.json").write_text('{"tables": {"decoder": {"rule": "alibi", "slopes": [0.5]}}}')
        model = client.load_model("models--org--name/snapshots/abc/tables.json", name="org/name")
        assert model.name == "org/name"
        assert client.get_model("org/name").content_hash == model.content_hash
        assert [model.name for model in client.list_failed_models()] == ["broken"]


RULES: dict[str, Any] = {
    "t5": attnd.T5Buckets(8, 20, np.arange(24, dtype=np.float32).reshape(8, 3) / 4),
    "alibi": attnd.AlibiSlopes(np.array([0.5, 0.25, 0.125])),
    "alibi of a list": attnd.AlibiSlopes([0.5, 0.25, 0.125]),
    "per offset": attnd.PerOffset(-2, np.arange(15).reshape(3, 5)),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_tables_come_back_as_they_were_sent(client: attnd.Client, name: str, bidirectional: bool) -> None:
    sent = RULES[name]
    if name == "per offset":
        bidirectional = True  # as its offsets say
    model = client.upload_table("mine", attnd.Table(sent, bidirectional))
    assert list(model.tables) == ["encoder" if bidirectional else "decoder"]
    table = client.get_model("mine", include_values=True).tables[next(iter(model.tables))]
    assert (table.heads, table.bidirectional) == (3, bidirectional)
    assert type(table.rule) is type(sent)
    for field in vars(sent):
        assert np.array_equal(getattr(table.rule, field), getattr(sent, field))


REFUSED: list[tuple[Any, str]] = [
    (attnd.T5Buckets(8, 20, np.zeros((7, 3))), "table.t5.values"),
    (attnd.T5Buckets(8, 20, np.zeros(24)), "table.t5.values"),
    (attnd.T5Buckets(8, 20), "table.t5.values"),
    (attnd.T5Buckets(-8, 20, np.zeros((8, 3))), "table.t5.num_buckets"),
    (attnd.T5Buckets(8, 0, np.zeros((8, 3))), "table.t5.max_distance"),
    (attnd.AlibiSlopes(["steep"]), "table.alibi.slopes"),
    (attnd.PerOffset(0, np.zeros((3, 2, 2))), "table.per_offset.values"),
    ("decoder", "table.rule"),
]


@pytest.mark.parametrize(("rule", "field"), REFUSED)
def test_refused_tables(shared: attnd.Client, rule: Any, field: str) -> None:
    with pytest.raises(attnd.InvalidArgument) as caught:
        shared.upload_table("refused", attnd.Table(rule, heads=3))
    assert caught.value.field == field
    with pytest.raises(attnd.InvalidArgument, match=r"an attnd\.Table"):
        shared.upload_table("refused", rule)


def test_load_reload_unload(client: attnd.Client, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "root" / "mine.json"

    def write(slope: float) -> None:
        file.write_text(json.dumps({"tables": {"decoder": {"rule": "alibi", "slopes": [slope]}}}))

    write(0.5)
    loaded = client.load_model("mine.json")
    assert (loaded.name, loaded.version, loaded.format, loaded.source) == ("mine", 1, "json", "mine.json")
    assert client.load_model("mine.json", name="other").name == "other"
    with pytest.raises(attnd.AlreadyExists):
        client.load_model("mine.json")
    with pytest.raises(attnd.PermissionDenied):
        client.load_model("../log")
    with pytest.raises(attnd.NotFound):
        client.load_model("nobody.json")
    write(0.25)
    again = client.reload_model("mine")
    assert again.version == 2
    assert again.content_hash != loaded.content_hash
    with pytest.raises(attnd.NotFound) as caught:
        client.get_model("mine", version=1)
    assert caught.value.field == "version"
    assert client.unload_model("mine") is None
    with pytest.raises(attnd.NotFound):
        client.unload_model("mine")


def test_bias(shared: attnd.Client) -> None:
    window = shared.bias("t5-tiny", queries=3, keys=5, query_start=10, key_start=8, heads=[7, 2])
    assert window.offsets.tolist() == [[2, 1, 0, -1, -2], [3, 2, 1, 0, -1], [4, 3, 2, 1, 0]]
    assert window.buckets.tolist() == [[2, 1, 0, -1, -1], [3, 2, 1, 0, -1], [4, 3, 2, 1, 0]]
    assert (window.mask, window.heads, window.table, window.version) == ("causal", [7, 2], "decoder", 1)
    values = shared.get_model("t5-tiny", include_values=True).tables["decoder"].rule.values
    assert window.values.dtype == np.float32
    assert np.array_equal(window.values[1, 2], values[[4, 3, 2, 1, 0], 2])
    assert shared.bias("t5-tiny", queries=2, table="encoder").mask == "none"
    assert shared.bias("t5-tiny", queries=2, heads="all").heads == shared.bias("t5-tiny", queries=2).heads
    for arguments, field in (
        ({"queries": 0}, "queries"),
        ({"heads": [-1]}, "heads[0]"),
        ({"heads": [9]}, "heads[0]"),
        ({"heads": 1}, "heads"),
        ({"heads": "every"}, "heads"),
    ):
        with pytest.raises(attnd.InvalidArgument) as caught:
            shared.bias("t5-tiny", **arguments)
        assert caught.value.field == field


# What attnctl is asked, what client.bias is asked, and which head or heads are drawn.
PICTURES: list[tuple[list[str], dict[str, Any], dict[str, Any]]] = [
    (["book", "--queries=6"], {"queries": 6}, {}),
    (["book", "--queries=1"], {"queries": 1}, {}),
    (["t5-tiny", "--queries=20", "--keys=13"], {"queries": 20, "keys": 13}, {}),
    (["t5-tiny", "--queries=64"], {"queries": 64}, {}),
    (["t5-tiny", "--queries=70"], {"queries": 70}, {}),
    (["t5-tiny", "--queries=12", "--mask=none"], {"queries": 12, "mask": "none"}, {}),
    (["t5-tiny", "--queries=4", "--key_start=50"], {"queries": 4, "key_start": 50}, {}),
    (["t5-tiny", "--queries=9", "--table=encoder"], {"queries": 9, "table": "encoder"}, {}),
    (
        ["t5-tiny", "--queries=50", "--keys=90", "--table=encoder"],
        {"queries": 50, "keys": 90, "table": "encoder"},
        {},
    ),
    (["t5-tiny", "--queries=512", "--table=encoder"], {"queries": 512, "table": "encoder", "heads": [0]}, {}),
    (
        ["t5-tiny", "--queries=1", "--query_start=63", "--keys=64"],
        {"queries": 1, "query_start": 63, "keys": 64},
        {},
    ),
    (
        ["t5-tiny", "--queries=6", "--query_start=2000000", "--key_start=1999998"],
        {"queries": 6, "query_start": 2000000, "key_start": 1999998},
        {},
    ),
    (["t5-tiny", "--queries=6", "--head=3"], {"queries": 6}, {"head": 3}),
    (["t5-tiny", "--queries=18", "--head=0", "--table=encoder"], {"queries": 18, "table": "encoder"}, {"head": 0}),
    (["t5-tiny", "--queries=64", "--head=5", "--key_start=90"], {"queries": 64, "key_start": 90}, {"head": 5}),
    (["t5-tiny", "--queries=3", "--query_start=99", "--head=1"], {"queries": 3, "query_start": 99}, {"head": 1}),
    (["t5-tiny", "--queries=500", "--head=1"], {"queries": 500, "heads": [1]}, {"head": 1}),
    (["t5-tiny", "--queries=6", "--heads=all"], {"queries": 6}, {"heads": "all"}),
    (["t5-tiny", "--queries=24", "--heads=5,0,3"], {"queries": 24}, {"heads": [5, 0, 3]}),
    (["t5-tiny", "--queries=200", "--heads=all"], {"queries": 200}, {"heads": "all"}),
    (
        ["t5-tiny", "--queries=2", "--keys=40", "--query_start=38", "--heads=all"],
        {"queries": 2, "keys": 40, "query_start": 38},
        {"heads": "all"},
    ),
    (
        ["t5-tiny", "--queries=40", "--keys=4", "--heads=all", "--table=encoder"],
        {"queries": 40, "keys": 4, "table": "encoder"},
        {"heads": "all"},
    ),
]


@pytest.mark.parametrize(("flags", "arguments", "drawn"), PICTURES)
def test_pictures_are_those_of_attnctl(
    shared: attnd.Client,
    server: Server,
    attnctl_binary: str,
    flags: list[str],
    arguments: dict[str, Any],
    drawn: dict[str, Any],
) -> None:
    window = shared.bias(flags[0], **arguments)

    def of_attnctl(form: str) -> str:
        words = [attnctl_binary, "bias", *flags, f"--server={server.tcp}", f"--format={form}"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    assert window.text(**drawn) == of_attnctl("text")
    assert window.svg(**drawn) == of_attnctl("svg")


SVG = "{http://www.w3.org/2000/svg}"


def luminance(colour: str) -> float:
    """WCAG 2.2, "relative luminance", of "#rrggbb"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(c * weight for c, weight in zip(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def labels_on_cells(svg: str) -> list[tuple[str, str]]:
    """Of each label in a cell the colours of its text and of what is below it, read from the document."""
    runs: list[tuple[float, float, float, float, str]] = []  # left, top, right, bottom
    labels = []
    for group in xml.etree.ElementTree.fromstring(svg).iter(f"{SVG}g"):
        transform = re.match(r"translate\((\S+) (\S+)\) scale\((\S+) (\S+)\)", group.get("transform", ""))
        if transform:
            left, top, width, height = map(float, transform.groups())
            for path in group:
                for run in re.finditer(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path.get("d", "")):
                    k, q, count = map(int, run.groups())
                    x, y = left + k * width, top + q * height
                    runs.append((x, y, x + count * width, y + height, path.get("fill", "")))
        for text in group.iter(f"{SVG}text"):
            assert text.get("opacity") is None
            x, y = float(text.get("x", "")), float(text.get("y", ""))
            below = [fill for x0, y0, x1, y1, fill in runs if x0 < x < x1 and y0 < y < y1]
            assert len(below) == 1, text.attrib
            labels.append((text.get("fill", group.get("fill", "")), below[0]))
    return labels


def test_labels_stand_out_from_every_colour(client: attnd.Client) -> None:
    """WCAG 2.2 AA: 4.5 to 1."""
    # As many values as the scale has colours, and as many buckets as a labelled picture can show.
    values = np.linspace(-1, 1, 65, dtype=np.float32)[:, None]
    client.upload_table("all", attnd.Table(attnd.PerOffset(-32, values.T), True))
    seen = set()
    for start in (0, 20):
        window = client.bias("all", queries=20, keys=38, query_start=start, key_start=20 - start)
        seen |= set(labels_on_cells(window.svg(head=0)))
    assert len({below for _, below in seen}) > 50
    client.upload_table("buckets", attnd.Table(attnd.T5Buckets(128, 4096, np.zeros((128, 1), np.float32)), True))
    for mask in ("none", "causal"):
        for queries in (3, 20, 48):
            window = client.bias("buckets", queries=queries, mask=mask, table="encoder")
            labels = labels_on_cells(window.svg())
            # Small cells have the bucket, large ones also their query and key.
            cells = queries * queries if mask == "none" else queries * (queries + 1) // 2
            assert len(labels) == cells * (2 if queries < 10 else 1)
            seen |= set(labels)
    for text, below in seen:
        assert contrast(text, below) >= 4.5, (text, below)


def test_all_else_stands_out_from_the_ground(shared: attnd.Client) -> None:
    document = xml.etree.ElementTree.fromstring(shared.bias("t5-tiny", queries=30, table="encoder").svg())
    ground = document.find(f"{SVG}rect")
    assert ground is not None
    assert ground.get("width") == ground.get("height") == "100%"
    texts = document.findall(f"{SVG}text")
    assert len(texts) > 40
    for text in texts:
        assert contrast(text.get("fill", ""), ground.get("fill", "")) >= 4.5


def test_a_picture_says_what_it_is(shared: attnd.Client) -> None:
    document = xml.etree.ElementTree.fromstring(shared.bias("t5-tiny", queries=5, query_start=7).svg(heads="all"))
    assert document.get("role") == "img"
    assert document.findtext(f"{SVG}title") == "t5-tiny version 1, decoder, 8 heads: bias"
    description = document.findtext(f"{SVG}desc")
    assert description is not None
    assert description.startswith("Rows are queries 7 to 11, columns are keys 0 to 4. Values from ")
    said = ["".join(text.itertext()) for text in document.iter(f"{SVG}text")]
    for words in ("query position", "key position", "q11", "k4", *(f"head {head}" for head in range(8))):
        assert words in said


def test_a_legend_has_the_tables_ranges(shared: attnd.Client) -> None:
    window = shared.bias("book", queries=6)
    assert window.bucket_ranges == {0: (None, 0), 1: (1, 1), 2: (2, 3), 3: (4, None)}
    assert "u3: from 4 on" in window.text()
    encoder = shared.bias("t5-tiny", queries=20, table="encoder")
    assert encoder.bucket_ranges[26] == (-22, -16)
    assert "u26: -16 to -22" in encoder.text()
    # A server of before bucket_ranges: the window's, which is said.
    window.bucket_ranges = {}
    assert "of each bucket in this window:\nu0: 0   u1: 1   u2: 2 to 3   u3: 4 to 5\n" in window.text()


def test_a_picture_of_values_that_are_not_finite(shared: attnd.Client) -> None:
    window = shared.bias("book", queries=2, heads=[0])
    window.values = np.array([[[2, 0], [np.inf, 2]]], np.float32)
    assert ">2.00 to 2.00</text>" in window.svg(head=0)
    window.values = np.array([[[np.nan, 0], [-np.inf, np.nan]]], np.float32)
    svg = window.svg(head=0)
    assert ">nan</text>" in svg and 'fill="#404040"' in svg
    assert "inf" in window.text(head=0)


def test_pictures_in_a_notebook(shared: attnd.Client) -> None:
    window = shared.bias("book", queries=4)
    assert window._repr_svg_() == window.svg()
    assert xml.etree.ElementTree.fromstring(window.svg()).tag == "{http://www.w3.org/2000/svg}svg"
    assert str(window) == window.text()
    assert "4 queries" in repr(window)
    for wrong in ({"head": 8}, {"heads": [0, 8]}, {"heads": []}, {"heads": "every"}, {"head": 0, "heads": "all"}):
        with pytest.raises(ValueError, match=r"^heads?: expected"):
            window.svg(**wrong)
        with pytest.raises(ValueError, match=r"^heads?: expected"):
            window.text(**wrong)


def test_text_in_a_terminal(shared: attnd.Client) -> None:
    window = shared.bias("t5-tiny", queries=40)
    narrow = window.text(columns=60)
    assert max(map(len, narrow.splitlines())) <= 60
    assert "queries and keys, to fit the terminal" in narrow
    coloured = window.text(colour=True)
    assert "\x1b[48;2;" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == window.text()
    assert "\x1b[48;2;" in window.text(head=1, colour=True)


def test_a_table_without_buckets(client: attnd.Client) -> None:
    client.upload_table("alibi", attnd.Table(attnd.AlibiSlopes([0.5, 0.25])))
    window = client.bias("alibi", queries=3, heads=[1])
    assert window.buckets is None
    assert window.bucket_ranges == {}
    assert window.text().startswith("alibi version 1, decoder, head 1: bias\n")
    assert window.svg() == window.svg(head=1)
    assert window.svg(head=1) != client.bias("alibi", queries=3).svg(heads="all")


def test_server_info(shared: attnd.Client) -> None:
    info = shared.server_info()
    assert info.version == attnd.__version__
    assert info.kernel in info.available_kernels
    assert info.threads >= 1
    assert info.limits["max_head_dim"] == 4096
    assert len(info.limits) == 18
    assert 0 < info.model_bytes <= info.limits["max_total_model_bytes"]
    assert info.memory is not None
    assert info.memory.total_bytes == info.limits["max_inflight_bytes"]
    assert info.memory.free_bytes == info.memory.total_bytes - info.memory.used_bytes
    assert info.stalled_calls == attnd.StalledCalls(0, 0)
    assert info.memory.max_peer_bytes == info.memory.total_bytes // 2
    assert info.queue == attnd.QueueUse(0, 0, 0)
    assert info.sessions is not None
    assert (info.sessions.max_sessions, info.sessions.max_peer_sessions) == (1024, 256)
    assert {setting.name for setting in info.settings} >= {"allocator", "kernel"}
    assert all(setting.state in ("in force", "not in force", "requested") for setting in info.settings)


def test_health(shared: attnd.Client) -> None:
    for service in ("", "liveness", "attnd.v1.AttentionService"):
        assert shared.health(service) is attnd.ServingStatus.SERVING
