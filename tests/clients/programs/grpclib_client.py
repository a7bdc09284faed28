"""n = 2048 with grpclib, which receives messages of any size: grpclib_client.py ADDRESS MODEL INPUT OUTPUT."""

import asyncio
import pathlib
import sys

from grpclib.client import Channel
from grpclib.exceptions import GRPCError

from attnd.v1 import attention_grpc, attention_pb2, types_pb2

HEADS, LENGTH, DIM = 8, 2048, 64
SIZE = HEADS * LENGTH * DIM * 4


async def main(address: str, model: str, source: str, target: str) -> None:
    tensors = pathlib.Path(source).read_bytes()
    q, k, v = (tensors[i * SIZE : (i + 1) * SIZE] for i in range(3))
    request = attention_pb2.ComputeAttentionRequest(
        model=model, batch=1, heads=HEADS, query_length=LENGTH, key_length=LENGTH, head_dim=DIM, q=q, k=k, v=v
    )
    request.dtype = types_pb2.DTYPE_FP32
    host, port = address.rsplit(":", 1)
    async with Channel(host, int(port)) as channel:
        try:
            reply = await attention_grpc.AttentionServiceStub(channel).ComputeAttention(request, timeout=30)
        except GRPCError as error:
            # grpclib decodes details whose generated module is imported.
            fields = [detail.field for detail in error.details or () if isinstance(detail, types_pb2.ErrorDetail)]
            sys.exit(f"{error.status.name}: {error.message}\n  field {', '.join(fields)}")
    pathlib.Path(target).write_bytes(reply.output)


asyncio.run(main(*sys.argv[1:]))
