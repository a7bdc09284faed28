"""What a user would otherwise build: a gRPC server in Python around PyTorch's scaled_dot_product_attention.

Speaks attnd.v1, so that the same client can call it and attnd: ComputeAttention and StreamAttention (causal, full
lengths, tensors as bytes), UploadTable, GetServerInfo. The bias and the causal mask are one ready matrix, made once for
each size and kept, as a careful user would do it.

  python_server.py --listen 127.0.0.1:0 --threads 1 [--cpus 0]
prints {"listening": "127.0.0.1:PORT"} when it is ready, and serves until its stdin is closed or it gets SIGTERM.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import os
import signal
import sys
import threading
import time
import warnings

import grpc
import numpy as np
import torch
from torch.nn import functional

import contract
import t5_bias

DTYPES = {
    contract.types.DTYPE_FP32: torch.float32,
    contract.types.DTYPE_FP16: torch.float16,
    contract.types.DTYPE_BF16: torch.bfloat16,
}


class Refused(Exception):
    """A request that this server does not take, with its gRPC code."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


class Tables:
    """Uploaded T5 tables, and the masks made from them."""

    def __init__(self):
        self._tables: dict[str, np.ndarray] = {}
        self.mask = functools.lru_cache(maxsize=16)(self._make_mask)

    def add(self, name: str, table) -> None:
        t5 = table.t5
        if (t5.num_buckets, t5.max_distance) != (t5_bias.NUM_BUCKETS, t5_bias.MAX_DISTANCE):
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "table.t5: expected 32 buckets up to distance 128")
        self._tables[name] = np.array(t5.values, np.float32).reshape(t5.num_buckets, table.heads)
        self.mask.cache_clear()

    def _make_mask(self, name: str, first: int, heads: int, queries: int, keys: int, dtype: torch.dtype):
        """[1, heads, queries, keys]; the queries are the last rows."""
        if name not in self._tables:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"model: expected a loaded model, got '{name}'")
        table = self._tables[name][:, first : first + heads]
        bias = t5_bias.by_offset(table, keys)
        return torch.from_numpy(t5_bias.causal_mask(bias, queries, keys)).unsqueeze(0).to(dtype)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def compute(tables: Tables, call, tensors) -> tuple[int, bytes]:
    """Attention of `call` on the q, k and v of `tensors`: the nanoseconds it took, and the output's bytes."""
    masked = call.query_lengths or call.key_lengths or call.key_starts or call.key_bits
    if masked or call.query_offsets or call.HasField("query_offset") or call.return_log_sum_exp:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "only mask, first_head, layout and scale are implemented here")
    if call.bias == contract.attention.BIAS_NONE:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "bias: only a model's is implemented here")
    if call.mask == contract.types.MASK_NONE:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "mask: only causal is implemented here")
    start = time.perf_counter_ns()
    dtype = DTYPES[call.dtype]
    by_rows = call.layout == contract.attention.LAYOUT_BATCH_SEQUENCE_HEAD_DIM
    kv_heads = call.kv_heads or call.heads
    value_dim = call.value_head_dim or call.head_dim

    def view(data: bytes, heads: int, rows: int, dim: int) -> torch.Tensor:
        flat = torch.frombuffer(data, dtype=dtype)
        if by_rows:
            return flat.view(call.batch, rows, heads, dim).transpose(1, 2)
        return flat.view(call.batch, heads, rows, dim)

    q = view(tensors.q, call.heads, call.query_length, call.head_dim)
    k = view(tensors.k, kv_heads, call.key_length, call.head_dim)
    v = view(tensors.v, kv_heads, call.key_length, value_dim)
    mask = tables.mask(call.model, call.first_head, call.heads, call.query_length, call.key_length, dtype)
    scale = call.scale if call.HasField("scale") else 1.0
    grouped = kv_heads != call.heads
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)
    data = _bytes(out.transpose(1, 2) if by_rows else out)
    return time.perf_counter_ns() - start, data


class AttentionService(contract.attention_grpc.AttentionServiceServicer):
    def __init__(self, tables: Tables):
        self._tables = tables

    def ComputeAttention(self, request, context):
        try:
            nanoseconds, output = compute(self._tables, request, request)
        except Refused as refused:
            context.abort(refused.code, str(refused))
        except (RuntimeError, ValueError, KeyError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        reply = contract.attention.ComputeAttentionResponse(version=1, dtype=request.dtype, output=output)
        reply.compute_time.FromNanoseconds(nanoseconds)
        return reply

    def StreamAttention(self, requests, context):
        for piece in requests:
            answer = contract.attention.StreamAttentionResponse(id=piece.id)
            try:
                nanoseconds, answer.output = compute(self._tables, piece.call, piece)
                answer.result.version = 1
                answer.result.dtype = piece.call.dtype
                answer.result.compute_time.FromNanoseconds(nanoseconds)
            except Refused as refused:
                answer.code, answer.message = refused.code.value[0], str(refused)
            except (RuntimeError, ValueError, KeyError) as error:
                answer.code, answer.message = grpc.StatusCode.INVALID_ARGUMENT.value[0], str(error)
            yield answer


class ModelService(contract.model_grpc.ModelServiceServicer):
    def __init__(self, tables: Tables):
        self._tables = tables

    def UploadTable(self, request, context):
        try:
            self._tables.add(request.model, request.table)
        except Refused as refused:
            context.abort(refused.code, str(refused))
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        made = contract.model.Model(name=request.model, version=1, heads=request.table.heads, source="upload")
        return contract.model.UploadTableResponse(model=made)


class ServerService(contract.server_grpc.ServerServiceServicer):
    def GetServerInfo(self, request, context):
        return contract.server.GetServerInfoResponse(
            version="0.0.0", kernel=f"PyTorch {torch.__version__}", threads=torch.get_num_threads()
        )


def serve(listen: str) -> None:
    tables = Tables()
    # Two handlers: one can take the next message in while the other computes.
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=2), options=contract.CHANNEL_OPTIONS)
    contract.attention_grpc.add_AttentionServiceServicer_to_server(AttentionService(tables), server)
    contract.model_grpc.add_ModelServiceServicer_to_server(ModelService(tables), server)
    contract.server_grpc.add_ServerServiceServicer_to_server(ServerService(), server)
    port = server.add_insecure_port(listen)
    server.start()
    address = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
    print(json.dumps({"listening": address}), flush=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    stop.wait()
    server.stop(grace=1).wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:0", help="host:port or unix:PATH")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads")
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")], help="CPUs to stay on")
    options = parser.parse_args()
    if options.cpus:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), options.cpus)
    warnings.filterwarnings("ignore", message="The given buffer is not writable")
    torch.set_grad_enabled(False)
    torch.set_num_threads(options.threads)
    serve(options.listen)


if __name__ == "__main__":
    main()
