"""Measures echoes of one message under several settings of gRPC's channels, in turns. Prints a Markdown table.

  channel_settings.py [--build DIR] [--rounds N] [--seconds S]
Takes two minutes. Needs the built target attnd_bench and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess

import page

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _reads(size: int) -> list[str]:
    return [f"grpc.experimental.tcp_{limit}read_chunk_size={size}" for limit in ("", "min_")]


SETTINGS = {
    "as gRPC has it": [],
    "frames of 16 MiB": ["grpc.http2.max_frame_size=16777215"],
    "windows of 64 MiB, no probing": ["grpc.http2.bdp_probe=0", "grpc.http2.lookahead_bytes=67108864"],
    "write buffer of 4 MiB": ["grpc.http2.write_buffer_size=4194304"],
    "reads of 256 KiB": _reads(256 << 10),
    "reads of 1 MiB": _reads(1 << 20),
    "no retries": ["grpc.enable_retries=0"],
    "retry buffer of 64 MiB": ["grpc.per_rpc_retry_buffer_size=67108864"],
    "zero-copy sends": ["grpc.experimental.tcp_tx_zerocopy_enabled=1"],
}
LENGTH_OF = {1: 512, 4: 2048, 16: 8192}  # MiB of a tensor: its length, for 8 heads, d = 64, fp32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    columns = [(size, transport) for size in LENGTH_OF for transport in ("tcp", "uds")]
    best: dict[tuple[str, int, str], tuple[float, float]] = {}
    for _ in range(options.rounds):
        for size, transport in columns:
            for name, settings in SETTINGS.items():
                command = [str(options.build / "bench/attnd_bench"), "wire", "--echo", "--mode=unary", "--rounds=1"]
                command += [f"--turn_seconds={options.seconds}", f"--transport={transport}"]
                command += [f"--shape=1,8,{LENGTH_OF[size]},64", f"--channel_settings={','.join(settings)}"]
                line = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                p50, least = best.get((name, size, transport), (float("inf"), float("inf")))
                best[name, size, transport] = min(p50, line["p50_ms"]), min(least, line["min_ms"])
    rows = [
        [name, *(f"{best[name, *column][0]:.2f} / {best[name, *column][1]:.2f}" for column in columns)]
        for name in SETTINGS
    ]
    print(page.table(["setting", *(f"{size} MiB, {transport}" for size, transport in columns)], rows))


if __name__ == "__main__":
    main()
