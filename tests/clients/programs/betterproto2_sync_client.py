"""n = 2048 with betterproto2 over grpcio: betterproto2_sync_client.py ADDRESS MODEL INPUT OUTPUT."""

import pathlib
import sys

import grpc
from betterproto2_sync.attnd import v1
from grpc_status import rpc_status

HEADS, LENGTH, DIM = 8, 2048, 64
SIZE = HEADS * LENGTH * DIM * 4

address, model, source, target = sys.argv[1:]
tensors = pathlib.Path(source).read_bytes()
q, k, v = (tensors[i * SIZE : (i + 1) * SIZE] for i in range(3))
request = v1.ComputeAttentionRequest(
    model=model, batch=1, heads=HEADS, query_length=LENGTH, key_length=LENGTH, head_dim=DIM, q=q, k=k, v=v
)
request.dtype = v1.Dtype.FP32
with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 64 << 20)]) as channel:
    try:
        reply = v1.AttentionServiceStub(channel).compute_attention(request)
    except grpc.RpcError as error:
        # grpc_status reads the trailer; its details are packed messages, which betterproto2 reads.
        fields = [v1.ErrorDetail.parse(packed.value).field for packed in rpc_status.from_call(error).details]
        sys.exit(f"{error.code().name}: {error.details()}\n  field {', '.join(fields)}")
pathlib.Path(target).write_bytes(reply.output)
