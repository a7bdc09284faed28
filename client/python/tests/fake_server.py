"""A gRPC server whose answers a test decides: for what the real one does not do on request."""

from __future__ import annotations

import pathlib
import threading
from concurrent import futures
from typing import Any, Callable

import grpc
import pytest

from attnd.v1 import attention_pb2, model_pb2, server_pb2

COMPUTE = "ComputeAttention"
STREAM = "StreamAttention"

Handler = Callable[[Any, Any], Any]


class FakeServer(grpc.GenericRpcHandler):
    """Answers a method by `handlers[name](request, context)`, and one without a handler with UNIMPLEMENTED. `calls` are
    the names of those that were called."""

    def __init__(self, address: str = "127.0.0.1:0", credentials: Any = None) -> None:
        self.calls: list[str] = []
        self.metadata: list[dict[str, Any]] = []
        self.handlers: dict[str, Handler] = {
            "GetServerInfo": answer_info,
            COMPUTE: answer_compute,
            STREAM: answer_stream,
        }
        self.cancelled = threading.Event()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(16), handlers=(self,), options=[("grpc.max_receive_message_length", -1)]
        )
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self.target = f"127.0.0.1:{self.port}"
        self._server.start()

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name not in self.handlers:
            self.calls.append(name)
            return None

        def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append(name)
            self.metadata.append(dict(context.invocation_metadata()))
            return self.handlers[name](request, context)

        if name == STREAM:
            return grpc.stream_stream_rpc_method_handler(behave)
        return grpc.unary_unary_rpc_method_handler(behave)

    def hang(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """A handler that answers when the call has ended; `cancelled` says that it has."""
        ended = threading.Event()
        when_ended(context, self.cancelled.set)
        when_ended(context, ended.set)
        ended.wait(30)
        return b""

    def stop(self) -> None:
        assert self._server.stop(0).wait(30), "the server does not stop"


def when_ended(context: grpc.ServicerContext, tell: Callable[[], None]) -> None:
    """Calls `tell` when the call has ended, which it may have before its handler begins."""
    if not context.add_callback(tell):
        tell()


def answer_info(request: bytes, context: grpc.ServicerContext) -> bytes:
    return server_pb2.GetServerInfoResponse(version="fake").SerializeToString()


def answer_compute(request: bytes, context: grpc.ServicerContext) -> bytes:
    """The output is zeros."""
    call = attention_pb2.ComputeAttentionRequest.FromString(request)
    size = call.batch * call.heads * call.query_length * call.value_head_dim * (4 if call.output_dtype == 1 else 2)
    return attention_pb2.ComputeAttentionResponse(
        version=1, content_hash="fake", dtype=call.output_dtype, output=bytes(size)
    ).SerializeToString()


def answer_piece(request: bytes) -> bytes:
    """Of a stream. The output is zeros."""
    piece = attention_pb2.StreamAttentionRequest.FromString(request)
    result = attention_pb2.ComputeAttentionResponse.FromString(answer_compute(piece.call.SerializeToString(), None))
    answer = attention_pb2.StreamAttentionResponse(id=piece.id, output=result.output)
    result.ClearField("output")
    answer.result.CopyFrom(result)
    return answer.SerializeToString()


def answer_stream(requests: Any, context: Any) -> Any:
    for request in requests:
        yield answer_piece(request)


def answer_model(request: bytes, context: grpc.ServicerContext) -> bytes:
    return model_pb2.LoadModelResponse(model=model_pb2.Model(name="fake", version=1)).SerializeToString()


def refuse(
    code: grpc.StatusCode, message: str, metadata: Any = (), times: int = 1, then: Handler = answer_info
) -> Handler:
    """A handler that refuses the first calls, and answers the others as `then` does."""
    left = [times]

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        if left[0] <= 0:
            return then(request, context)
        left[0] -= 1
        context.set_trailing_metadata(metadata)
        context.abort(code, message)
        raise AssertionError("abort raises")

    return handle


@pytest.fixture
def fake() -> Any:
    server = FakeServer()
    yield server
    server.stop()


def run_openssl(folder: pathlib.Path) -> tuple[bytes, bytes]:
    """A new key and a certificate for localhost, in PEM."""
    import shutil
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
    return key.read_bytes(), certificate.read_bytes()
