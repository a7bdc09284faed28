"""Every failed call is an Error with the server's code, words and detail."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Callable

import grpc
import pytest

import attnd
from attnd import errors
from attnd._status import error_of
from attnd._wire import varint
from attnd.v1 import types_pb2
from conftest import Server
from fake_server import COMPUTE, FakeServer, fake, refuse  # noqa: F401
from inputs import tensors

BUILT_IN = {
    "INVALID_ARGUMENT": ValueError,
    "DEADLINE_EXCEEDED": TimeoutError,
    "NOT_FOUND": LookupError,
    "PERMISSION_DENIED": PermissionError,
    "UNIMPLEMENTED": NotImplementedError,
    "UNAVAILABLE": ConnectionError,
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_each_code_has_a_class(fake: FakeServer, code: grpc.StatusCode) -> None:  # noqa: F811
    fake.handlers["GetServerInfo"] = refuse(code, "why not")
    with attnd.Client(fake.target, retry=None) as client, pytest.raises(attnd.Error) as caught:
        client.server_info()
    error = caught.value
    assert error.code is code
    assert type(error).__name__.lower() == code.name.replace("_", "").lower()
    assert getattr(attnd, type(error).__name__) is type(error)
    assert isinstance(error, BUILT_IN.get(code.name, Exception))
    assert str(error) == error.message == "why not"
    assert (error.field, error.expected, error.got, error.retry_delay) == ("", "", "", None)


def test_an_unknown_code() -> None:
    assert type(error_of(77, "new", None, None)) is attnd.Unknown


def any_of(name: str, value: bytes) -> bytes:
    """google.rpc.Status {3: Any {1: type_url, 2: value}}."""
    url = f"type.googleapis.com/{name}".encode()
    entry = b"\x0a" + varint(len(url)) + url + b"\x12" + varint(len(value)) + value
    return b"\x1a" + varint(len(entry)) + entry


DETAIL = types_pb2.ErrorDetail(field="q", expected="this", got="that").SerializeToString()
RETRY_INFO = b"\x0a\x08\x08\x02\x10\x80\xca\xb5\xee\x01"  # {1: Duration {1: 2, 2: 500000000}}


@pytest.mark.parametrize(
    ("details", "field", "delay"),
    [
        (b"\x08\x08\x12\x03why" + any_of("attnd.v1.ErrorDetail", DETAIL), "q", None),
        (any_of("google.rpc.RetryInfo", RETRY_INFO), "", 2.5),
        (any_of("google.rpc.RetryInfo", RETRY_INFO) + any_of("attnd.v1.ErrorDetail", DETAIL), "q", 2.5),
        (any_of("google.rpc.Help", b"\x0a\x00"), "", None),
        (any_of("attnd.v1.ErrorDetail", b"\xff\xff"), "", None),
        (b"\x1a\x7f", "", None),
        (b"\x1b", "", None),
        (b"", "", None),
    ],
)
def test_details(fake: FakeServer, details: bytes, field: str, delay: Any) -> None:  # noqa: F811
    metadata = (("grpc-status-details-bin", details),)
    fake.handlers["GetServerInfo"] = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", metadata)
    with attnd.Client(fake.target) as client, pytest.raises(attnd.ResourceExhausted) as caught:
        client.server_info()
    assert caught.value.field == field
    assert caught.value.retry_delay == delay


@pytest.mark.parametrize("remake", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_travel_between_processes(remake: Callable[[Any], Any]) -> None:
    for name in errors.__all__:
        original = getattr(errors, name)("m", field="f", expected="e", got="g", retry_delay=1.5)
        made = remake(original)
        assert type(made) is type(original)
        assert (str(made), made.field, made.expected, made.got, made.retry_delay) == ("m", "f", "e", "g", 1.5)


SERVER_ERRORS: dict[str, tuple[Callable[[attnd.Client], Any], type[attnd.Error], str]] = {
    "model": (lambda c: c.attend(*tensors(), "nobody"), attnd.NotFound, "model"),
    "version": (lambda c: c.attend(*tensors(), "t5-tiny", version=9), attnd.NotFound, "version"),
    "table": (lambda c: c.attend(*tensors(), "t5-tiny", table="other"), attnd.NotFound, "table"),
    "heads": (lambda c: c.attend(*tensors(heads=3), "t5-tiny"), attnd.InvalidArgument, "heads"),
    "max_head_dim": (lambda c: c.attend(*tensors(dim=5000), "t5-tiny"), attnd.InvalidArgument, "head_dim"),
    "get_model": (lambda c: c.get_model("nobody"), attnd.NotFound, "name"),
    "bad name": (lambda c: c.get_model("../x"), attnd.InvalidArgument, "name"),
    "load_model": (lambda c: c.load_model("x"), attnd.FailedPrecondition, ""),
    "reload_model": (lambda c: c.reload_model("t5-tiny"), attnd.FailedPrecondition, "name"),
    "unload_model": (lambda c: c.unload_model("nobody"), attnd.NotFound, "name"),
    "bias": (lambda c: c.bias("book", queries=1 << 20), attnd.ResourceExhausted, "query_count"),
    "service": (lambda c: c.health("nobody"), attnd.NotFound, ""),
}


@pytest.mark.parametrize("case", SERVER_ERRORS)
def test_of_the_server(server: Server, case: str) -> None:
    call, kind, field = SERVER_ERRORS[case]
    with attnd.Client(server.tcp) as client, pytest.raises(kind) as caught:
        call(client)
    assert type(caught.value) is kind
    assert caught.value.field == field
    if field:
        assert str(caught.value) == f"{field}: expected {caught.value.expected}, got {caught.value.got}"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"\xff", "no protobuf message"),
        (b"", "dtype"),
        (b"\x18\x01", "no output"),
        (b"\x18\x01\xaa\x06\x01x", "output: expected 32768 bytes, got 1"),
        (b"\x12\x02\xff\xff\x18\x01", "ComputeAttentionResponse"),
    ],
)
def test_an_answer_that_is_none(fake: FakeServer, answer: bytes, why: str) -> None:  # noqa: F811
    fake.handlers[COMPUTE] = lambda request, context: answer
    with attnd.Client(fake.target) as client, pytest.raises(attnd.Internal, match=why):
        client.attend(*tensors(), "m")


def test_a_message_larger_than_the_server_takes(make_server: Callable[..., Server]) -> None:
    small = make_server("--max_request_bytes=100000")
    with attnd.Client(small.tcp) as client:
        with pytest.raises(attnd.ResourceExhausted):
            client.attend(*tensors(queries=256), "t5-tiny")
        assert client.attend(*tensors(), "t5-tiny").shape == (1, 8, 16, 64)
