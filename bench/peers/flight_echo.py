"""Arrow Flight as the wire: a DoExchange echo of tensors, three sent and one back, between two processes.

  flight_echo.py --transport tcp|uds --bytes 1048576 [--pages huge|small] [--seconds 1] [--client-cpu 1] [--server-cpu 0]
prints one JSON line: min_ms, p50_ms, p99_ms, bytes_per_second (of four tensors, at p50), huge_fraction (of the tensors
that are sent). --bytes is the size of one tensor. Arrow allocates what it receives itself.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow
from pyarrow import flight

import pages


class Echo(flight.FlightServerBase):
    """Answers each batch with its last column."""

    def do_exchange(self, context, descriptor, reader, writer):
        schema = None
        for chunk in reader:
            column = chunk.data.column(2)
            if schema is None:
                schema = pyarrow.schema([("out", column.type)])
                writer.begin(schema)
            writer.write_batch(pyarrow.record_batch([column], schema=schema))


def pin(cpu: int) -> None:
    if cpu >= 0:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), [cpu])


def serve(location: str, cpu: int) -> None:
    """Serves until stdin is closed."""
    pin(cpu)
    server = Echo(location)
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()


def measure(client: flight.FlightClient, tensor_bytes: int, seconds: float, kind: str) -> dict[str, float]:
    rng = np.random.default_rng(1)
    count = max(1, tensor_bytes // 4)
    tensors = [pages.copy(rng.standard_normal(count, np.float32), kind) for _ in range(3)]
    columns = [pyarrow.array(tensor) for tensor in tensors]
    if any(column.buffers()[1].address != tensor.ctypes.data for column, tensor in zip(columns, tensors)):
        raise ValueError("Arrow copied a tensor to memory of its own")
    batch = pyarrow.record_batch(columns, names=["q", "k", "v"])
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b"echo"))
    writer.begin(batch.schema)
    times = []
    begin = None
    while begin is None or time.perf_counter() - begin < seconds:
        start = time.perf_counter_ns()
        writer.write_batch(batch)
        answer = reader.read_chunk().data
        elapsed = (time.perf_counter_ns() - start) / 1e6
        if begin is None:  # The first exchange is checked, not timed.
            if not answer.column(0).equals(columns[2]):
                raise ValueError("the echo answered with other values than were sent")
            begin = time.perf_counter()
        else:
            times.append(elapsed)
    writer.done_writing()
    writer.close()
    times.sort()
    p50 = statistics.median(times)
    return {
        "min_ms": times[0],
        "p50_ms": p50,
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)],
        "bytes_per_second": 4 * columns[0].nbytes / (p50 / 1e3),
        "exchanges": len(times),
        "huge_fraction": pages.huge_fraction(map(pages.span, tensors)),
    }


def run(options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="attnd-flight-") as folder:
        path = pathlib.Path(folder) / "echo.sock"
        location = "grpc+tcp://127.0.0.1:0" if options.transport == "tcp" else f"grpc+unix://{path}"
        command = [sys.executable, __file__, "--serve", location, "--server-cpu", str(options.server_cpu)]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            port = server.stdout.readline().strip()
            pin(options.client_cpu)
            if options.transport == "tcp":
                location = f"grpc+tcp://127.0.0.1:{port}"
            with flight.connect(location) as client:
                return measure(client, options.bytes, options.seconds, options.pages)
        finally:
            server.stdin.close()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", choices=("tcp", "uds"), default="tcp")
    parser.add_argument("--bytes", type=int, default=1 << 20)
    parser.add_argument("--pages", choices=pages.KINDS, default="huge")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--client-cpu", type=int, default=-1)
    parser.add_argument("--server-cpu", type=int, default=-1)
    parser.add_argument("--serve", metavar="LOCATION", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.server_cpu)
    else:
        print(json.dumps({"transport": options.transport, "tensor_bytes": options.bytes, **run(options)}))


if __name__ == "__main__":
    main()
