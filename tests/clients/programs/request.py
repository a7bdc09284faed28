"""Writes the request of n = 2048 in protobuf's binary form: request.py MODEL INPUT REQUEST."""

import pathlib
import sys

from attnd.v1 import attention_pb2, types_pb2

HEADS, LENGTH, DIM = 8, 2048, 64
SIZE = HEADS * LENGTH * DIM * 4

model, source, target = sys.argv[1:]
tensors = pathlib.Path(source).read_bytes()
q, k, v = (tensors[i * SIZE : (i + 1) * SIZE] for i in range(3))
request = attention_pb2.ComputeAttentionRequest(
    model=model, batch=1, heads=HEADS, query_length=LENGTH, key_length=LENGTH, head_dim=DIM, q=q, k=k, v=v
)
request.dtype = types_pb2.DTYPE_FP32
pathlib.Path(target).write_bytes(request.SerializeToString())
