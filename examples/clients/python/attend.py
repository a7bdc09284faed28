"""Computes attention with plain grpcio: attend.py ADDRESS MODEL INPUT OUTPUT (see the README one folder up)."""

import pathlib
import sys

import grpc
from grpc_status import rpc_status

from attnd.v1 import attention_pb2, attention_pb2_grpc, types_pb2

HEADS, LENGTH, DIM = 8, 2048, 64
SIZE = HEADS * LENGTH * DIM * 4

address, model, source, target = sys.argv[1:]
tensors = pathlib.Path(source).read_bytes()
q, k, v = (tensors[i * SIZE : (i + 1) * SIZE] for i in range(3))
request = attention_pb2.ComputeAttentionRequest(
    model=model, batch=1, heads=HEADS, query_length=LENGTH, key_length=LENGTH, head_dim=DIM, q=q, k=k, v=v
)
request.dtype = types_pb2.DTYPE_FP32

# The reply is 89 bytes over the 4 MiB that grpcio receives by default.
channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 64 << 20)])
try:
    reply = attention_pb2_grpc.AttentionServiceStub(channel).ComputeAttention(request, timeout=30)
except grpc.RpcError as error:
    print(f"{error.code().name}: {error.details()}", file=sys.stderr)
    status = rpc_status.from_call(error)
    for packed in status.details if status else ():
        detail = types_pb2.ErrorDetail()
        if packed.Unpack(detail):
            print(f"  field {detail.field}: expected {detail.expected}, got {detail.got}", file=sys.stderr)
    sys.exit(1)
pathlib.Path(target).write_bytes(reply.output)
