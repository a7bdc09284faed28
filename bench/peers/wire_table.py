"""Measures calls to attnd beside what a user would build instead, and writes the wire's tables.

Run it through bench/wire_table.sh. Needs the packages of requirements.txt and the built targets attnd and
attnd_server_race. The machine should do nothing else meanwhile. Server and client each have a CPU of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys

import machine
import page
import servers

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Goal for the p50 of the Python server over ours, by sequence length.
RACE_GOALS = {128: 3.0, 512: 3.0, 2048: 2.5}
MEBIBYTES = (1, 4, 16)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench/results/wire.json")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/performance.md")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one turn")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each entrant")
    parser.add_argument("--print", action="store_true", help="print the tables instead of writing files")
    return parser.parse_args()


def json_lines(command: list[str]) -> list[dict]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f"{command[0]}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def race(options: argparse.Namespace, server_cpu: int, client_cpu: int) -> dict[str, dict[str, dict]]:
    """Both servers, called in turns by the C++ client: length -> server -> its line."""
    logs = options.build / "peers-logs"
    logs.mkdir(parents=True, exist_ok=True)
    results = {}
    with contextlib.ExitStack() as stack:
        targets = {
            "attnd": stack.enter_context(
                servers.attnd(options.build / "server/attnd", [server_cpu], logs / "attnd.log")
            ),
            "python": stack.enter_context(servers.python_server([server_cpu], logs / "python_server.log")),
        }
        for n in RACE_GOALS:
            command = [str(options.build / "bench/attnd_server_race"), f"--shape=1,8,{n},64", f"--cpu={client_cpu}"]
            command += [f"--seconds={options.seconds}", f"--rounds={options.rounds}", *targets.values()]
            results[str(n)] = dict(zip(targets, json_lines(command)))
            print(f"race, n = {n}: done", file=sys.stderr, flush=True)
    return results


def flight(options: argparse.Namespace, server_cpu: int, client_cpu: int) -> dict[str, dict[str, dict]]:
    """Arrow Flight's echo: MiB of a tensor -> transport -> min of the mins, median of the medians."""
    script = pathlib.Path(__file__).with_name("flight_echo.py")
    results = {}
    for size in MEBIBYTES:
        turns = {"tcp": [], "uds": []}
        for _ in range(max(1, options.rounds // 2)):
            for transport, lines in turns.items():
                command = [sys.executable, str(script), "--transport", transport, "--bytes", str(size << 20)]
                command += ["--seconds", str(options.seconds), "--server-cpu", str(server_cpu)]
                lines += json_lines([*command, "--client-cpu", str(client_cpu)])
        results[str(size)] = {
            transport: {
                "min_ms": min(line["min_ms"] for line in lines),
                "p50_ms": statistics.median(line["p50_ms"] for line in lines),
                "bytes_per_second": statistics.median(line["bytes_per_second"] for line in lines),
            }
            for transport, lines in turns.items()
        }
        print(f"flight, {size} MiB: done", file=sys.stderr, flush=True)
    return results


def race_table(results: dict[str, dict[str, dict]]) -> str:
    rows = []
    for n, lines in results.items():
        ours, theirs = lines["attnd"], lines["python"]
        ratio, goal = theirs["p50_ms"] / ours["p50_ms"], RACE_GOALS[int(n)]
        rows.append(
            [
                n,
                f"{ours['p50_ms']:.3f} / {ours['min_ms']:.3f} / {ours['compute_ms']:.3f}",
                f"{theirs['p50_ms']:.3f} / {theirs['min_ms']:.3f} / {theirs['compute_ms']:.3f}",
                f"≥ {goal:g}×",
                f"{ratio:.2f}×",
                f"{theirs['min_ms'] / ours['min_ms']:.2f}×",
                "reached" if ratio >= goal else "**not reached**",
            ]
        )
    header = ("n", "attnd ms: p50 / min / compute", "Python ms: p50 / min / compute", "goal", "by p50", "by min", "")
    return page.table(header, rows)


def flight_table(results: dict[str, dict[str, dict]]) -> str:
    rows = [
        [f"{size} MiB", transport, f"{line['p50_ms']:.3f}", f"{line['min_ms']:.3f}", f"{line['bytes_per_second'] / 1e9:.2f}"]
        for size, lines in results.items()
        for transport, line in lines.items()
    ]
    return page.table(("tensor", "transport", "p50 ms", "min ms", "GB/s at p50"), rows)


def main() -> None:
    options = arguments()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        sys.exit("needs two CPUs: one for the server, one for the client")
    server_cpu, client_cpu = cpus[0], cpus[-1]
    results = {"race": race(options, server_cpu, client_cpu), "flight": flight(options, server_cpu, client_cpu)}
    packages = ("grpcio", "torch", "pyarrow")
    facts = {
        **machine.describe(),
        **{name: importlib.metadata.version(name) for name in packages},
        "date": datetime.date.today().isoformat(),
    }
    body = "\n\n".join(
        [
            page.table(("", ""), facts.items()),
            "### Against a Python server around PyTorch",
            race_table(results["race"]),
            "### Arrow Flight's echo",
            flight_table(results["flight"]),
        ]
    )
    if options.print:
        print(body)
        return
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps({"facts": facts, **results}, indent=1) + "\n")
    page.replace_section(options.page, "wire table", body)


if __name__ == "__main__":
    main()
