"""What a Python caller sees: checks any attnd.v1 server against the formula, then times calls with generated code.

  python_client.py --target 127.0.0.1:50051 --shape 1,8,512,64 [--dtype fp32] [--seconds 1] [--cpus 1]
Uploads a seeded T5 table under the name "peer", compares one reply with the formula in float64, and prints one JSON
line with min_ms, p50_ms, p99_ms, bytes_per_second, compute_ms (as the server says; median) and max_error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import grpc
import numpy as np

import contract
import formula
import t5_bias
from case import Case, Inputs, make_inputs

DTYPES = {
    "fp32": contract.types.DTYPE_FP32,
    "fp16": contract.types.DTYPE_FP16,
    "bf16": contract.types.DTYPE_BF16,
}


def to_bytes(values: np.ndarray, dtype: str) -> bytes:
    """float32 values that `dtype` can hold, in that dtype."""
    if dtype == "bf16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype(np.float16 if dtype == "fp16" else np.float32).tobytes()


def from_bytes(data: bytes, dtype: str) -> np.ndarray:
    if dtype == "bf16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, np.float16 if dtype == "fp16" else np.float32).astype(np.float32)


def upload(channel: grpc.Channel, table: np.ndarray) -> None:
    buckets, heads = table.shape
    rule = contract.model.T5Buckets(
        num_buckets=buckets, max_distance=t5_bias.MAX_DISTANCE, values=table.ravel().tolist()
    )
    made = contract.model.Table(heads=heads, t5=rule)
    request = contract.model.UploadTableRequest(model="peer", table=made, replace=True)
    contract.model_grpc.ModelServiceStub(channel).UploadTable(request)


def request_of(inputs: Inputs):
    case = inputs.case
    return contract.attention.ComputeAttentionRequest(
        model="peer",
        batch=case.batch,
        heads=case.heads,
        query_length=case.queries,
        key_length=case.keys,
        head_dim=case.dim,
        dtype=DTYPES[case.dtype],
        q=to_bytes(inputs.q, case.dtype),
        k=to_bytes(inputs.k, case.dtype),
        v=to_bytes(inputs.v, case.dtype),
    )


def measure(channel: grpc.Channel, inputs: Inputs, seconds: float) -> dict[str, float]:
    call = contract.attention_grpc.AttentionServiceStub(channel).ComputeAttention
    request = request_of(inputs)
    reply = call(request)
    output = from_bytes(reply.output, inputs.case.dtype).reshape(inputs.q.shape)
    checked = formula.check(inputs, output, True, inputs.case.dtype)
    times, compute = [], []
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < seconds:
        start = time.perf_counter_ns()
        reply = call(request)
        times.append((time.perf_counter_ns() - start) / 1e6)
        compute.append(reply.compute_time.ToNanoseconds() / 1e6)
    times.sort()
    moved = request.ByteSize() + reply.ByteSize()
    p50 = statistics.median(times)
    return {
        "min_ms": times[0],
        "p50_ms": p50,
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)],
        "bytes_per_second": moved / (p50 / 1e3),
        "compute_ms": statistics.median(compute),
        "calls": len(times),
        "max_error": checked["max_error"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="a gRPC name")
    parser.add_argument("--shape", required=True, help="B,H,N,D")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")], help="CPUs to stay on")
    options = parser.parse_args()
    if options.cpus:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), options.cpus)
    batch, heads, n, dim = (int(size) for size in options.shape.split(","))
    inputs = make_inputs(Case(batch, heads, n, n, dim, options.dtype))
    with grpc.insecure_channel(options.target, options=contract.CHANNEL_OPTIONS) as channel:
        upload(channel, inputs.table)
        print(json.dumps(measure(channel, inputs, options.seconds)))


if __name__ == "__main__":
    main()
