"""What every call begins with, and the settings of its channel."""

from __future__ import annotations

import math
from typing import Any, Dict, List

import pytest

import attnd
from attnd import _attention, _methods
from attnd._channels import Channels
from attnd._deadline import Deadline, checked_seconds, checked_timeout
from attnd._operation import run
from attnd._options import channel_options
from attnd.v1 import model_pb2
from scripted import Clock, ScriptedIo, scripted_core


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, "_retry", "_deadline")


@pytest.fixture
def io(clock: Clock) -> ScriptedIo:
    return ScriptedIo(clock)


@pytest.mark.parametrize("timeout", [0, -1, -math.inf, 0.0])
def test_a_time_that_has_passed_sends_nothing(io: ScriptedIo, timeout: float) -> None:
    for core, given in ((scripted_core(io, None), timeout), (scripted_core(io, None, timeout=timeout), None)):
        with pytest.raises(attnd.DeadlineExceeded):
            core.begin(given, None)


@pytest.mark.parametrize(("of_client", "of_call", "seconds"), [(7.0, None, 7.0), (7.0, 3, 3.0), (7.0, math.inf, None)])
def test_the_time_of_a_call(io: ScriptedIo, of_client: float, of_call: Any, seconds: Any) -> None:
    deadline, _ = scripted_core(io, None, timeout=of_client).begin(of_call, None)
    assert deadline.left() == seconds


def test_a_deadline(clock: Clock) -> None:
    deadline = Deadline(2.0)
    for passed, left, over in ((0.0, 2.0, False), (1.5, 0.5, False), (2.0, 0.0, True), (3.0, 0.0, True)):
        clock.now = 1000.0 + passed
        assert (deadline.left(), deadline.passed()) == (left, over)
    assert Deadline(math.inf).left() is None
    assert "2 s" in str(deadline.error())


@pytest.mark.parametrize("value", [math.nan, "x", [1], object()])
def test_what_is_no_time(value: Any) -> None:
    for check in (lambda: checked_timeout(value), lambda: checked_seconds("timeout", value, 1.0)):
        with pytest.raises(attnd.InvalidArgument) as caught:
            check()
        assert caught.value.field == "timeout"
    assert checked_seconds("grace", 0, 9.0) == 0
    assert checked_seconds("grace", None, 9.0) == 9.0
    with pytest.raises(attnd.InvalidArgument):
        checked_seconds("grace", -0.001, 9.0)


METADATA: Dict[str, Any] = {
    "none": (None, ()),
    "a mapping": ({"a": "b"}, (("a", "b"),)),
    "pairs": ([("a", "b"), ("a", "c")], (("a", "b"), ("a", "c"))),
    "binary": ({"a-bin": b"\x00\xff"}, (("a-bin", b"\x00\xff"),)),
    "empty text": ({"a": ""}, (("a", ""),)),
    "every sign of a key": ({"09az_.-": "x"}, (("09az_.-", "x"),)),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_and_the_token_behind_it(io: ScriptedIo, case: str) -> None:
    given, expected = METADATA[case]
    made: List[int] = []
    assert scripted_core(io, None).begin(None, given)[1] == expected
    core = scripted_core(io, None, token=lambda: made.append(1) or f"t{len(made)}")
    for i in (1, 2):
        assert core.begin(None, given)[1] == (*expected, ("authorization", f"Bearer t{i}"))


@pytest.mark.parametrize(
    "metadata",
    [
        {"A": "b"}, {"": "b"}, {"a b": "b"}, {"grpc-x": "b"}, {"a": "\n"}, {"a": "ä"}, {"a": b"b"}, {"a-bin": "b"},
        {1: "b"}, {"a": 1}, [("a",)], [["a", "b"]], [("a", "b", "c")], 3, "ab",
    ],
)  # fmt: skip
def test_what_is_no_metadata(io: ScriptedIo, metadata: Any) -> None:
    with pytest.raises(attnd.InvalidArgument) as caught:
        scripted_core(io, None).begin(None, metadata)
    assert caught.value.field == "metadata"


@pytest.mark.parametrize("token", ["", "a\n", "ä", None, 3])
def test_a_token_that_cannot_be_sent_is_not_shown(io: ScriptedIo, token: Any) -> None:
    with pytest.raises(attnd.InvalidArgument) as caught:
        scripted_core(io, None, token=lambda: token).begin(None, None)
    assert caught.value.field == "token"
    assert "something else" in str(caught.value)


def test_a_closed_client_begins_nothing(io: ScriptedIo) -> None:
    core = scripted_core(io, None)
    core.close_transports()
    with pytest.raises(attnd.FailedPrecondition):
        core.begin(None, None)


@pytest.mark.parametrize(
    ("channels", "load_balancing", "width"), [(1, "pick_first", 4), (1, "round_robin", 8), (3, "round_robin", 12)]
)
def test_how_many_calls_at_once(io: ScriptedIo, channels: int, load_balancing: str, width: int) -> None:
    core = scripted_core(io, None, channels=channels, load_balancing=load_balancing)
    assert _attention.width_of(core) == width


def test_the_settings_of_a_channel(io: ScriptedIo) -> None:
    core = scripted_core(io, None, keepalive_time=1.5, keepalive_timeout=math.inf, user_agent="me/1", channels=2)
    found = dict(channel_options(core.options))
    expected = {
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        "grpc.lb_policy_name": "pick_first",
        "grpc.keepalive_time_ms": 1500,
        "grpc.keepalive_timeout_ms": 2**31 - 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.service_config_disable_resolution": 1,
        "grpc.use_local_subchannel_pool": 1,
        "grpc.enable_http_proxy": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["grpc.secondary_user_agent"].startswith("me/1 attnd-python/")
    assert found["grpc.initial_reconnect_backoff_ms"] <= found["grpc.max_reconnect_backoff_ms"] <= 1000
    one = dict(channel_options(scripted_core(io, None, keepalive_time=1e9).options))
    assert "grpc.use_local_subchannel_pool" not in one
    assert one["grpc.keepalive_time_ms"] == 2**31 - 1


class Api:
    """Instead of the module grpc."""

    def __init__(self) -> None:
        self.made: List[Any] = []

    def insecure_channel(self, target: str, settings: Any) -> Any:
        self.made.append(("insecure", target))
        return Channel(len(self.made) - 1)

    def secure_channel(self, target: str, credentials: Any, settings: Any) -> Any:
        self.made.append((credentials, target))
        return Channel(len(self.made) - 1)


class Channel:
    def __init__(self, number: int) -> None:
        self.number = number

    def unary_unary(self, method: str, *_: Any) -> Any:
        return self.number, method

    stream_stream = unary_unary


@pytest.mark.parametrize("count", [1, 2, 3])
def test_channels_take_turns(io: ScriptedIo, count: int) -> None:
    """Of calls and of streams together, whichever method they are of."""
    channels = Channels(Api(), scripted_core(io, None, channels=count).options)
    assert len(channels.all) == count
    assert channels.first.number == 0
    found = [channels.unary(f"m{i % 2}") if i % 3 else channels.stream(f"m{i % 2}") for i in range(12)]
    assert found == [(i % count, f"m{i % 2}") for i in range(12)]


def test_all_pages_of_a_list(io: ScriptedIo) -> None:
    pages = {"": (["a", "b"], "x"), "x": (["c"], "y"), "y": ([], "z"), "z": (["d"], "")}
    asked: List[str] = []

    def unary(method: str, payload: bytes, *_: Any) -> bytes:
        asked.append(model_pb2.ListModelsRequest.FromString(payload).page_token)
        names, following = pages[asked[-1]]
        models = [model_pb2.Model(name=name) for name in names]
        return model_pb2.ListModelsResponse(models=models, next_page_token=following).SerializeToString()

    io.unary = unary  # type: ignore[method-assign]
    models = run(_methods.list_models(scripted_core(io, None)))
    assert [model.name for model in models] == ["a", "b", "c", "d"]
    assert asked == ["", "x", "y", "z"]
