#!/usr/bin/env python3
"""What driver.cc does, with Python's grpcio.

  python_client.py TARGET SERVICE_CONFIG REQUEST OUTPUT_BYTES SECONDS

SERVICE_CONFIG is gRPC's, in JSON. REQUEST is a file with a serialised ComputeAttentionRequest; an answer's last
OUTPUT_BYTES bytes, its output, must be the same each time.
"""

import json
import pathlib
import sys
import threading
import time

import grpc

METHOD = "/attnd.v1.AttentionService/ComputeAttention"
DEADLINE = 60  # seconds
CALLERS, PAUSE = 8, 0.05


class Tally:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.times, self.failed, self.words = [], {}, {}
        self.gap, self.last_success = 0.0, time.monotonic()

    def add(self, start: float, code: str, message: str) -> None:
        end = time.monotonic()
        with self.lock:
            self.times.append(end - start)
            if code:
                self.failed[code] = self.failed.get(code, 0) + 1
                self.words.setdefault(code, message)
            else:
                self.gap = max(self.gap, end - self.last_success)
                self.last_success = end

    def record(self) -> dict:
        times = sorted(self.times)
        gap = max(self.gap, time.monotonic() - self.last_success)
        return {
            "calls": len(times),
            "failed": self.failed,
            "words": self.words,
            "median": times[len(times) // 2],
            "longest": times[-1],
            "gap": gap,
        }


def main() -> int:
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    target, config, request_file, output_bytes, seconds = sys.argv[1:]
    request = pathlib.Path(request_file).read_bytes()
    size = int(output_bytes)
    channel = grpc.insecure_channel(target, options=[("grpc.service_config", config)])
    call = channel.unary_unary(METHOD)
    tally = Tally()
    outputs = set()
    end = time.monotonic() + float(seconds)

    def calls() -> None:
        while (start := time.monotonic()) < end:
            try:
                outputs.add(call(request, timeout=DEADLINE)[-size:])
                tally.add(start, "WRONG_ANSWER" if len(outputs) > 1 else "", "another output than before")
            except grpc.RpcError as error:
                tally.add(start, error.code().name, error.details())
            time.sleep(PAUSE)

    threads = [threading.Thread(target=calls) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(tally.record()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
