"""Each limit of an argument: the last value that is taken, and the first that is not, with its field named."""

from __future__ import annotations

import inspect
import math
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest

import attnd
from attnd import _convert, _options
from attnd._request import Call, ComputeRequest
from attnd._session import _opening
from attnd._step_message import StepMessage
from attnd._target import is_local
from attnd.v1 import attention_pb2, session_pb2
from scripted import scripted_core

BATCH, HEADS, QUERIES, KEYS = 2, 4, 3, 5
POSITION = 2**31 - 1
FLOAT = float(np.finfo(np.float32).max)


def request(**given: Any) -> Call:
    q = np.ones((BATCH, HEADS, QUERIES, 8), np.float32)
    k = np.ones((given.pop("kv_batch", BATCH), HEADS, KEYS, 8), np.float32)
    return Call.of(ComputeRequest(q, k, k, given.pop("model", "m"), **given))


def each(lowest: int, highest: int) -> Tuple[List[Any], List[Any]]:
    """One number for each sequence."""
    return [[lowest, highest], [highest, lowest]], [
        [lowest - 1, highest],
        [highest, lowest - 1],
        [lowest, highest + 1],
    ]


def one(lowest: Any, highest: Any) -> Tuple[List[Any], List[Any]]:
    return [lowest, highest], [lowest - 1, highest + 1]


def segments(*values: Tuple[int, ...]) -> List[Any]:
    return [list(value) for value in values]


# By field: values that are taken, and values that are not.
REQUEST: Dict[str, Tuple[List[Any], List[Any]]] = {
    "version": one(0, 2**64 - 1),
    "first_head": ([0, 2**63 - 1], [-1, 2**63]),
    "query_offset": one(-QUERIES, POSITION - QUERIES),
    "query_offsets": each(-QUERIES, POSITION - QUERIES),
    "query_lengths": each(0, QUERIES),
    "key_lengths": each(0, KEYS),
    "key_starts": each(0, KEYS),
    "prefix_lengths": each(0, KEYS),
    "window_left": one(0, POSITION),
    "window_right": one(0, POSITION),
    "kv_rows": each(0, BATCH - 1),
    "scale": ([FLOAT, -FLOAT, 0.0, 3.4028235677973362e38], [3.4028235677973366e38, math.inf, -math.inf, math.nan]),
    "query_segments": (
        segments((0, 3), (0, 1, 2, 3, 4, 5), (0, 2, 3)),
        segments((1, 3), (0, 2), (0, 0, 3), (0, 2, 1, 3), (0, 3, 6), (0, 4), (-1, 3)),
    ),
    "key_mask": (
        [np.ones((BATCH, KEYS), int), np.zeros((BATCH, KEYS), np.uint8)],
        [np.full((BATCH, KEYS), 2), -np.ones((BATCH, KEYS), int)],
    ),
    "key_bias": (
        [np.full((HEADS, KEYS), FLOAT, np.float32), -np.full((HEADS, KEYS), FLOAT, np.float32)],
        [np.full((HEADS, KEYS), value, np.float32) for value in (np.inf, -np.inf, np.nan)],
    ),
}
# Those that go with others.
BESIDE: Dict[str, Dict[str, Any]] = {
    "prefix_lengths": {"mask": "causal"},
    "query_segments": {"key_segments": None},
}
# Fields without a range, which other tests have, and those that are tensors.
NO_RANGE = {
    "q", "k", "v", "model", "table", "layout", "mask", "product_precision", "output_dtype", "return_log_sum_exp", "out",
    "key_segments",
}  # fmt: skip


def test_every_field_has_its_limits() -> None:
    assert set(REQUEST) | NO_RANGE == set(inspect.signature(ComputeRequest).parameters)


CASES = [(name, i) for name, (taken, _) in REQUEST.items() for i in range(len(taken))]
REFUSED = [(name, i) for name, (_, refused) in REQUEST.items() for i in range(len(refused))]


def beside(name: str, value: Any) -> Dict[str, Any]:
    more = dict(BESIDE.get(name, {}))
    if name == "query_segments":  # key_length is not query_length: the keys of each begin at other places
        more["key_segments"] = None
    return more


@pytest.mark.parametrize(("name", "i"), CASES)
def test_a_value_within_a_limit_is_sent(name: str, i: int) -> None:
    value = REQUEST[name][0][i]
    if name == "query_segments":
        q = np.ones((BATCH, HEADS, QUERIES, 8), np.float32)
        call = Call.of(ComputeRequest(q, q, q, "m", query_segments=value))
    else:
        call = request(**{name: value}, **beside(name, value))
    message = call.small()
    if name == "key_mask":
        assert message.key_bits == (b"" if value.all() else bytes(BATCH))
        return
    sent = getattr(message, name)
    expected = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    assert (list(sent) if isinstance(expected, list) else sent) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "i"), REFUSED)
def test_a_value_beyond_a_limit_is_refused(name: str, i: int) -> None:
    value = REQUEST[name][1][i]
    with pytest.raises(attnd.InvalidArgument) as caught:
        if name == "query_segments":
            q = np.ones((BATCH, HEADS, QUERIES, 8), np.float32)
            Call.of(ComputeRequest(q, q, q, "m", query_segments=value))
        else:
            request(**{name: value}, **beside(name, value))
    assert caught.value.field.partition("[")[0] == name


@pytest.mark.parametrize(
    ("starts", "field"),
    [
        ((0, 5), None),
        ((0, 4, 5), None),
        ((0, 4, 5, 9), None),
        ((0, 4), "key_segments"),
        ((1, 5), "key_segments[0]"),
        ((0, 0, 5), "key_segments[1]"),
        ((0, 5, 10), "key_segments[2]"),
        ((0, 5, 7), "key_segments[1]"),
    ],
)
def test_segments_of_keys(starts: Any, field: Any) -> None:
    """As many as of the queries, each in the same row."""
    queries = {2: (0, 3), 3: (0, 2, 3), 4: (0, 2, 3, 5)}[len(starts)]
    if field is None:
        assert list(request(query_segments=queries, key_segments=starts).small().key_segments) == list(starts)
        return
    with pytest.raises(attnd.InvalidArgument) as caught:
        request(query_segments=queries, key_segments=starts)
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["query_offsets", "query_lengths", "key_lengths", "key_starts", "kv_rows"])
@pytest.mark.parametrize("count", [BATCH - 1, BATCH + 1])
def test_one_value_for_each_sequence(name: str, count: int) -> None:
    with pytest.raises(attnd.InvalidArgument) as caught:
        request(**{name: [0] * count})
    assert caught.value.field == name


@pytest.mark.parametrize(("kv_batch", "row", "taken"), [(1, 0, True), (1, 1, False), (3, 2, True), (3, 3, False)])
def test_rows_of_another_batch(kv_batch: int, row: int, taken: bool) -> None:
    if taken:
        assert request(kv_batch=kv_batch, kv_rows=[0, row]).small().kv_batch == kv_batch
        return
    with pytest.raises(attnd.InvalidArgument) as caught:
        request(kv_batch=kv_batch, kv_rows=[0, row])
    assert caught.value.field == "kv_rows[1]"


MESSAGE = 2**31 - 1 - (1 << 20)


def broadcast(*shape: int) -> Any:
    """Takes no memory."""
    return np.broadcast_to(np.float32(1), shape)


@pytest.mark.parametrize("over", [0, 1])
def test_the_largest_message(over: int) -> None:
    keys = (MESSAGE // 4 - 4) // (4 + 4) + over
    q, k = broadcast(1, 1, 1, 4), broadcast(1, 1, keys, 4)
    if over == 0:
        assert Call.of(ComputeRequest(q, k, k, "m")).k.nbytes == keys * 16
        return
    with pytest.raises(attnd.ResourceExhausted) as caught:
        Call.of(ComputeRequest(q, k, k, "m"))
    assert caught.value.field == "q, k and v"


@pytest.mark.parametrize(("dtype", "queries"), [("float32", MESSAGE // 4 // 4096), ("float16", MESSAGE // 2 // 4096)])
@pytest.mark.parametrize("over", [0, 1])
def test_the_largest_output(dtype: str, queries: int, over: int) -> None:
    q, k, v = broadcast(1, 1, queries + over, 1), broadcast(1, 1, 1, 1), broadcast(1, 1, 1, 4096)
    if over == 0:
        assert Call.of(ComputeRequest(q, k, v, "m", output_dtype=dtype)).output_bytes <= MESSAGE
        return
    with pytest.raises(attnd.ResourceExhausted) as caught:
        Call.of(ComputeRequest(q, k, v, "m", output_dtype=dtype))
    assert caught.value.field == "output"


# Of an opening: lowest and highest.
OPENING: Dict[str, Tuple[Any, Any]] = {
    "rows": (1, 2**63 - 1),
    "max_tokens": (0, 2**63 - 1),
    "max_source_tokens": (0, 2**63 - 1),
    "version": (0, 2**64 - 1),
}
LAYER = attnd.SelfLayer(1, 1)


def opening(**given: Any) -> session_pb2.SessionOpen:
    everything = {
        "layers": [LAYER], "model": "m", "rows": 1, "sources": 0, "max_tokens": 0, "max_source_tokens": 0,
        "dtype": "float32", "version": 0, "row_sources": None, **given,
    }  # fmt: skip
    return _opening(scripted_core(None, None), **everything)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPENING)
def test_openings(name: str) -> None:
    lowest, highest = OPENING[name]
    for value in (lowest, highest):
        if value < 2**31:
            assert getattr(opening(**{name: value}), name) == value
    for value in (lowest - 1, highest + 1):
        with pytest.raises(attnd.InvalidArgument) as caught:
            opening(**{name: value})
        assert caught.value.field == name


@pytest.mark.parametrize("name", ["heads", "head_dim", "kv_heads", "value_head_dim"])
def test_layers(name: str) -> None:
    sizes = {"heads": 4, "head_dim": 4, name: 1}
    assert getattr(opening(layers=[attnd.SelfLayer(**sizes)]).layers[0], name) == 1
    for value in (0, -1):
        with pytest.raises(attnd.InvalidArgument) as caught:
            opening(layers=[attnd.SelfLayer(**{**sizes, name: value})])
        assert caught.value.field == f"layers[0].{name}"


@pytest.mark.parametrize(
    ("sources", "rows", "taken"), [(0, 3, True), (1, 3, True), (3, 3, True), (4, 3, False), (-1, 3, False)]
)
def test_sources(sources: int, rows: int, taken: bool) -> None:
    if taken:
        assert opening(rows=rows, sources=sources).sources == sources
        return
    with pytest.raises(attnd.InvalidArgument) as caught:
        opening(rows=rows, sources=sources)
    assert caught.value.field == "sources"


@pytest.mark.parametrize(("sources", "taken"), [([0, 1], True), ([1, 1], True), ([0, 2], False), ([-1, 0], False)])
def test_sources_of_rows(sources: List[int], taken: bool) -> None:
    if taken:
        assert list(opening(rows=2, sources=2, row_sources=sources).row_sources) == sources
        return
    with pytest.raises(attnd.InvalidArgument) as caught:
        opening(rows=2, sources=2, row_sources=sources)
    assert caught.value.field.startswith("row_sources[")


def step(**given: Any) -> session_pb2.SessionStep:
    """A step of two rows with three queries and keys."""
    core = scripted_core(None, None)  # type: ignore[arg-type]
    _, state = _opening(core, [attnd.SelfLayer(4, 8)], "m", 2, 0, 9, 0, "float32", 0, None)
    q = np.ones((2, 4, 3, 8), np.float32)
    message = StepMessage(state, 0, (q, q, q), "bhsd", None, None, False, 1.0)
    names = ("reorder", "truncate", "expected_lengths", "key_starts", "key_mask", "key_lengths", "query_lengths")
    message.say(*(given.get(name) for name in names))
    return session_pb2.SessionStep.FromString(message.question().body)


STEP: Dict[str, Tuple[int, int]] = {
    "reorder": (0, 1),
    "truncate": (0, 2**63 - 1),
    "expected_lengths": (0, 2**63 - 1),
    "key_starts": (0, POSITION),
    "key_lengths": (0, 3),
    "query_lengths": (0, 3),
}


@pytest.mark.parametrize("name", STEP)
def test_steps(name: str) -> None:
    lowest, highest = STEP[name]
    assert list(getattr(step(**{name: [lowest, highest]}), name)) == [lowest, highest]
    for values in ([lowest - 1, lowest], [lowest, highest + 1]):
        with pytest.raises(attnd.InvalidArgument) as caught:
            step(**{name: values})
        assert caught.value.field.partition("[")[0] == name


def test_a_session_remembers_no_more_forms_than_the_limit() -> None:
    core = scripted_core(None, None)  # type: ignore[arg-type]
    _, state = _opening(core, [attnd.SelfLayer(4, 8)], "m", 1, 0, 9999, 0, "float32", 0, None)
    for length in range(1, 300):
        q = np.ones((1, 4, length, 8), np.float32)
        message = StepMessage(state, 0, (q, None, None), "bhsd", None, None, False, 1.0)
        assert message.form.query_length == length
        assert len(state.forms) <= 64


# A client's settings: what is taken, and what is not.
SETTINGS: Dict[str, Tuple[List[Any], List[Any]]] = {
    "channels": ([1, 64], [0, 65, -1, 1.5, "1"]),
    "keepalive_time": ([0.001, math.inf], [0.0009, 0, -1, math.nan, "1"]),
    "keepalive_timeout": ([0.001, math.inf], [0.0009, 0, -1, math.nan, None]),
    "load_balancing": (["pick_first", "round_robin"], ["", "grpclb", None]),
    "user_agent": (["x", None], ["\n", "ä", 3]),
    "timeout": ([0.0, math.inf, 1], [math.nan, "x"]),
    "retry": ([None, attnd.Retry()], [3, "x"]),
    "token": (["x", None, lambda: "x"], [3, b"x"]),
    "credentials": ([None], ["x", 3]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str) -> None:
    taken, refused = SETTINGS[name]
    defaults = {
        parameter.name: parameter.default
        for parameter in inspect.signature(attnd.Client).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for value in taken:
        _options.checked("127.0.0.1:1", **{**defaults, name: value})
    for value in refused:
        with pytest.raises(attnd.InvalidArgument) as caught:
            _options.checked("127.0.0.1:1", **{**defaults, name: value})
        assert caught.value.field == name


# Whether a token may be sent without encryption. Every address of a target must be on this host.
TARGETS: Dict[str, bool] = {
    "127.0.0.1:1": True, "127.255.255.255:1": True, "128.0.0.1:1": False, "126.255.255.255:1": False,
    "localhost": True, "localhost.:1": True, "localhost.example.org:1": False, "LOCALHOST:1": True,
    "[::1]:1": True, "[::2]:1": False, "[::ffff:127.0.0.1]:1": True, "[::ffff:128.0.0.1]:1": False, "::1": True,
    "unix:/a": True, "unix:///a": True, "unix-abstract:a": True, "unixy:a": False,
    "dns:///localhost:1": True, "dns://8.8.8.8/localhost:1": True, "dns:///example.org:1": False,
    "ipv4:127.0.0.1:1,127.0.0.2:1": True, "ipv4:127.0.0.1:1,10.0.0.1:1": False, "ipv4:10.0.0.1:1,127.0.0.1:1": False,
    "ipv6:[::1]:1,[::1]:2": True, "ipv6:[::1]:1,[fe80::1]:2": False, "0.0.0.0:1": False, "": False,
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_where_a_token_may_go_in_the_clear(target: str) -> None:
    assert is_local(target) == TARGETS[target]
    if not target:
        return
    make: Callable[[], Any] = lambda: attnd.Client(target, token="secret")  # noqa: E731
    if TARGETS[target]:
        make().close()
        return
    with pytest.raises(attnd.InvalidArgument) as caught:
        make()
    assert caught.value.field == "token"
    assert "secret" not in str(caught.value)


# (field, lowest, highest) of a window of a bias.
WINDOW = [
    ("version", 0, 2**64 - 1), ("query_start", 0, 2**63 - 1), ("queries", 1, 2**63 - 1), ("key_start", 0, 2**63 - 1),
    ("keys", 1, 2**63 - 1),
]  # fmt: skip
SENT_AS = {"queries": "query_count", "keys": "key_count"}


@pytest.mark.parametrize(("name", "lowest", "highest"), WINDOW)
def test_windows(name: str, lowest: int, highest: int) -> None:
    usual: Dict[str, Any] = {
        "model": "m", "version": 0, "table": None, "query_start": 0, "queries": 8, "key_start": 0, "keys": None,
        "mask": None, "heads": None,
    }  # fmt: skip
    for value in (lowest, highest):
        assert getattr(_convert.bias_request(**{**usual, name: value}), SENT_AS.get(name, name)) == value
    for value in (lowest - 1, highest + 1):
        with pytest.raises(attnd.InvalidArgument) as caught:
            _convert.bias_request(**{**usual, name: value})
        assert caught.value.field == name


def test_the_answers_to_windows_have_the_windows_size() -> None:
    from attnd.v1 import model_pb2

    asked = _convert.bias_request("m", 0, None, 0, 2, 0, 3, None, None)

    def answered(offsets: int, buckets: int, heads: int, values: int) -> Any:
        message = model_pb2.GetBiasResponse(
            offsets=[0] * offsets, buckets=[0] * buckets, heads=range(heads), values=[0.0] * values
        )
        return _convert.bias_window_of(asked, message)

    for sizes in ((6, 6, 2, 12), (6, 0, 2, 12), (6, 0, 1, 6)):
        assert answered(*sizes).values.shape == (sizes[2], 2, 3)
    for sizes in (
        (5, 6, 2, 12),
        (7, 6, 2, 12),
        (6, 5, 2, 12),
        (6, 7, 2, 12),
        (6, 0, 2, 11),
        (6, 0, 2, 13),
        (6, 0, 0, 0),
    ):
        with pytest.raises(attnd.Internal):
            answered(*sizes)


def test_messages_have_the_fields_that_are_checked() -> None:
    """A field that is added to the message of a call needs its limits here."""
    names = {field.name for field in attention_pb2.ComputeAttentionRequest.DESCRIPTOR.fields}
    derived = {
        "batch", "heads", "kv_heads", "query_length", "key_length", "head_dim", "value_head_dim", "dtype", "bias",
        "table_heads", "key_bits", "kv_batch", "q_shared", "k_shared", "v_shared", "output_shared",
        "log_sum_exp_shared",
    }  # fmt: skip
    assert names == (set(REQUEST) | NO_RANGE | derived) - {"key_mask", "out"}
