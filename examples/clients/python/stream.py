"""As attend.py, within the 4 MiB that grpcio receives by default: each head goes through StreamAttention as a piece."""

import pathlib
import sys
from collections.abc import Iterator

import grpc

from attnd.v1 import attention_pb2, attention_pb2_grpc, types_pb2

HEADS, LENGTH, DIM = 8, 2048, 64
HEAD = LENGTH * DIM * 4  # bytes of a head
SIZE = HEADS * HEAD

address, model, source, target = sys.argv[1:]
tensors = pathlib.Path(source).read_bytes()


def piece(head: int) -> attention_pb2.StreamAttentionRequest:
    """One head of q, k and v. table_heads makes the server check that the table has just these heads."""
    call = attention_pb2.ComputeAttentionRequest(
        model=model, batch=1, heads=1, first_head=head, table_heads=HEADS, query_length=LENGTH, key_length=LENGTH
    )
    call.head_dim = DIM
    call.dtype = types_pb2.DTYPE_FP32
    q, k, v = (tensors[start : start + HEAD] for start in range(head * HEAD, 3 * SIZE, SIZE))
    # A server that stops waits for the next piece while there are more.
    return attention_pb2.StreamAttentionRequest(id=head, call=call, more=head + 1 < HEADS, q=q, k=k, v=v)


def pieces() -> Iterator[attention_pb2.StreamAttentionRequest]:
    """grpcio asks for a piece when it can send one, so that they are made one by one."""
    return (piece(head) for head in range(HEADS))


output = bytearray(SIZE)
answered = set()
try:
    with grpc.insecure_channel(address) as channel:
        for answer in attention_pb2_grpc.AttentionServiceStub(channel).StreamAttention(pieces(), timeout=30):
            # A piece that is refused does not end the stream. Its error comes in the answer, not in the trailers.
            if answer.code:
                detail = answer.detail
                name = next(code.name for code in grpc.StatusCode if code.value[0] == answer.code)
                sys.exit(
                    f"head {answer.id}: {name}: {answer.message}\n"
                    f"  field {detail.field}: expected {detail.expected}, got {detail.got}"
                )
            output[answer.id * HEAD : (answer.id + 1) * HEAD] = answer.output
            answered.add(answer.id)
except grpc.RpcError as error:
    sys.exit(f"{error.code().name}: {error.details()}")
if len(answered) != HEADS:
    sys.exit(f"the stream ended after {len(answered)} of {HEADS} pieces")
pathlib.Path(target).write_bytes(output)
