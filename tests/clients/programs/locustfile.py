"""A Locust user that computes n = 2048 over grpcio. REQUEST and EXPECTED name files: a request, its output."""

import os
import pathlib
import time

import grpc
import grpc.experimental.gevent
import locust

from attnd.v1 import attention_pb2, attention_pb2_grpc

grpc.experimental.gevent.init_gevent()
REQUEST = attention_pb2.ComputeAttentionRequest.FromString(pathlib.Path(os.environ["REQUEST"]).read_bytes())
EXPECTED = pathlib.Path(os.environ["EXPECTED"]).read_bytes()


class Caller(locust.User):
    def on_start(self) -> None:
        limit = int(os.environ.get("RECEIVE_LIMIT", "67108864"))
        self.channel = grpc.insecure_channel(self.host, options=[("grpc.max_receive_message_length", limit)])
        self.stub = attention_pb2_grpc.AttentionServiceStub(self.channel)

    def on_stop(self) -> None:
        self.channel.close()

    @locust.task
    def compute(self) -> None:
        began = time.perf_counter()
        failure, size = None, 0
        try:
            output = self.stub.ComputeAttention(REQUEST, timeout=30).output
            size = len(output)
            if output != EXPECTED:
                failure = ValueError("the output is not as expected")
        except grpc.RpcError as error:
            failure = error
        self.environment.events.request.fire(
            request_type="grpc",
            name="ComputeAttention",
            response_time=1000 * (time.perf_counter() - began),
            response_length=size,
            exception=failure,
        )
