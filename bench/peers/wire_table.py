"""Measures calls to attnd beside what a user would build instead, and writes the wire's tables.

Run it through bench/wire_table.sh. Needs the packages of requirements.txt and the built targets attnd, attnd_bench and
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
import wire_goals

ROOT = pathlib.Path(__file__).resolve().parents[2]
RACE_LENGTHS = (128, 512, 2048)
# Sequence lengths of 8 heads, d = 64, fp32, by the MiB of a tensor.
LENGTH_OF = {1: 512, 4: 2048, 16: 8192}
# What a call with arithmetic is measured through: name -> flags of attnd_bench wire.
CALLS = {
    "TCP, one message": ["--transport=tcp", "--mode=unary"],
    "TCP, pieces": ["--transport=tcp", "--mode=stream"],
    "Unix socket, one message": ["--transport=uds", "--mode=unary"],
    "Unix socket, pieces": ["--transport=uds", "--mode=stream"],
    "shared memory, in place": ["--transport=shm"],
    "shared memory, copied by the library": ["--transport=shm", "--copy"],
}


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
        for n in RACE_LENGTHS:
            command = [str(options.build / "bench/attnd_server_race"), f"--shape=1,8,{n},64", f"--cpu={client_cpu}"]
            command += [f"--seconds={options.seconds}", f"--rounds={options.rounds}", *targets.values()]
            results[str(n)] = dict(zip(targets, json_lines(command)))
            print(f"race, n = {n}: done", file=sys.stderr, flush=True)
    return results


def wire(options: argparse.Namespace, server_cpu: int, client_cpu: int, rounds: int, flags: list[str]) -> dict:
    """One line of attnd_bench wire."""
    command = [str(options.build / "bench/attnd_bench"), "wire", f"--server_cpu={server_cpu}", f"--client_cpu={client_cpu}"]
    command += [f"--rounds={rounds}", f"--turn_seconds={options.seconds}", *flags]
    return json_lines(command)[0]


def flight(options: argparse.Namespace, server_cpu: int, client_cpu: int, transport: str, size: int) -> dict:
    script = pathlib.Path(__file__).with_name("flight_echo.py")
    command = [sys.executable, str(script), "--transport", transport, "--bytes", str(size << 20)]
    command += ["--seconds", str(options.seconds), "--server-cpu", str(server_cpu), "--client-cpu", str(client_cpu)]
    return json_lines(command)[0]


def summary(lines: list[dict]) -> dict[str, float]:
    return {
        "min_ms": min(line["min_ms"] for line in lines),
        "p50_ms": statistics.median(line["p50_ms"] for line in lines),
    }


def echo(options: argparse.Namespace, server_cpu: int, client_cpu: int) -> dict[str, dict[str, dict[str, dict]]]:
    """The wire without arithmetic, in turns: MiB of a tensor -> transport -> entrant -> summary."""
    results = {}
    for size, length in LENGTH_OF.items():
        results[str(size)] = {}
        for transport in ("tcp", "uds"):
            turns = {"attnd, one message": [], "attnd, pieces": [], "Arrow Flight": [], "raw socket": []}
            for _ in range(options.rounds):
                for mode, name in (("unary", "attnd, one message"), ("stream", "attnd, pieces")):
                    flags = ["--echo", f"--shape=1,8,{length},64", f"--transport={transport}", f"--mode={mode}"]
                    line = wire(options, server_cpu, client_cpu, 1, flags)
                    turns[name].append(line)
                    turns["raw socket"].append({"min_ms": line["socket_min_ms"], "p50_ms": line["socket_p50_ms"]})
                turns["Arrow Flight"].append(flight(options, server_cpu, client_cpu, transport, size))
            results[str(size)][transport] = {name: summary(lines) for name, lines in turns.items()}
        print(f"echo, {size} MiB: done", file=sys.stderr, flush=True)
    return results


def calls(options: argparse.Namespace, server_cpu: int, client_cpu: int) -> dict[str, dict[str, dict]]:
    """Calls with arithmetic: setting -> name -> line."""
    settings = {
        "n2048": ["--shape=1,8,2048,64"],
        "n2048-bf16": ["--shape=1,8,2048,64", "--dtype=bf16"],
        "smallest": ["--shape=1,8,1,64"],
    }
    results = {}
    for setting, shape in settings.items():
        results[setting] = {}
        for name, flags in CALLS.items():
            if setting == "smallest" and "one message" not in name:
                continue
            results[setting][name] = wire(options, server_cpu, client_cpu, options.rounds, [*shape, *flags])
        print(f"calls, {setting}: done", file=sys.stderr, flush=True)
    return results


def memory(options: argparse.Namespace, server_cpu: int, client_cpu: int) -> dict[str, float]:
    """How much a call of n = 8192 raises the server's peak of resident memory, in MiB."""
    binary, log = options.build / "server/attnd", options.build / "peers-logs/attnd-memory.log"
    race_binary = str(options.build / "bench/attnd_server_race")
    with servers.attnd_process(binary, [server_cpu], log) as (target, pid):
        peak = []
        for n in (16, 8192):
            json_lines([race_binary, f"--shape=1,8,{n},64", f"--cpu={client_cpu}", "--seconds=1", "--rounds=1", target])
            peak.append(machine.peak_mebibytes(pid))
    return {"raised_mib": peak[1] - peak[0]}


def race_table(results: dict[str, dict[str, dict]]) -> str:
    rows = []
    for n, lines in results.items():
        ours, theirs = lines["attnd"], lines["python"]
        rows.append(
            [
                n,
                f"{ours['p50_ms']:.3f} / {ours['min_ms']:.3f}",
                f"{theirs['p50_ms']:.3f} / {theirs['min_ms']:.3f} / {theirs['compute_ms']:.3f}",
            ]
        )
    return page.table(("n", "attnd ms: p50 / min", "Python ms: p50 / min / compute"), rows)


def echo_table(results: dict[str, dict[str, dict[str, dict]]]) -> str:
    rows = []
    for size, transports in results.items():
        for transport, entrants in transports.items():
            for name, line in entrants.items():
                rate = 4 * (int(size) << 20) / line["p50_ms"] / 1e6
                rows.append([f"{size} MiB", transport, name, f"{line['p50_ms']:.3f}", f"{line['min_ms']:.3f}", f"{rate:.2f}"])
    return page.table(("tensor", "transport", "", "p50 ms", "min ms", "GB/s at p50"), rows)


def calls_table(results: dict[str, dict[str, dict]]) -> str:
    rows = []
    for setting, lines in results.items():
        for name, line in lines.items():
            what = f"{line['shape']} {line['dtype']}"
            cpu = f"{line['server_cpu_ms']:.2f} / {line['client_cpu_ms']:.2f} / {line['kernel_cpu_ms']:.2f}"
            times = [f"{line[key]:.3f}" for key in ("p50_ms", "min_ms", "p99_ms", "kernel_p50_ms", "kernel_min_ms")]
            note = "disturbed" if line["disturbed"] else ""
            rows.append([what, name, *times, cpu, f"{line['empty_call_p50_ms']:.3f}", note])
    header = ("shape", "through", "p50 ms", "min", "p99", "kernel p50", "kernel min", "CPU ms: server / client / kernel")
    return page.table((*header, "empty call p50", ""), rows)


def main() -> None:
    options = arguments()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        sys.exit("needs two CPUs: one for the server, one for the client")
    server_cpu, client_cpu = cpus[-1], cpus[0]
    results = {
        measure.__name__: measure(options, server_cpu, client_cpu) for measure in (echo, calls, race, memory)
    }
    packages = ("grpcio", "torch", "pyarrow")
    facts = {
        **machine.describe(),
        **{name: importlib.metadata.version(name) for name in packages},
        "date": datetime.date.today().isoformat(),
    }
    body = "\n\n".join(
        [
            page.table(("", ""), facts.items()),
            "### Goals of the wire",
            wire_goals.table(results),
            "### The wire without arithmetic",
            echo_table(results["echo"]),
            "### Calls",
            calls_table(results["calls"]),
            "### Against a Python server around PyTorch",
            race_table(results["race"]),
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
