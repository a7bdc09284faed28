"""n = 2048 with betterproto2 over grpclib: betterproto2_async_client.py ADDRESS MODEL INPUT OUTPUT."""

import asyncio
import pathlib
import sys

from betterproto2_async.attnd import v1
from grpclib.client import Channel
from grpclib.exceptions import GRPCError

HEADS, LENGTH, DIM = 8, 2048, 64
SIZE = HEADS * LENGTH * DIM * 4


async def main(address: str, model: str, source: str, target: str) -> None:
    tensors = pathlib.Path(source).read_bytes()
    q, k, v = (tensors[i * SIZE : (i + 1) * SIZE] for i in range(3))
    request = v1.ComputeAttentionRequest(
        model=model, batch=1, heads=HEADS, query_length=LENGTH, key_length=LENGTH, head_dim=DIM, q=q, k=k, v=v
    )
    request.dtype = v1.Dtype.FP32
    host, port = address.rsplit(":", 1)
    async with Channel(host, int(port)) as channel:
        try:
            reply = await v1.AttentionServiceStub(channel).compute_attention(request, timeout=30)
        except GRPCError as error:
            sys.exit(f"{error.status.name}: {error.message}")
    pathlib.Path(target).write_bytes(reply.output)


asyncio.run(main(*sys.argv[1:]))
