"""Measures calls to attnd beside what a user would build instead, and writes the wire's tables.

Run it through bench/wire_table.sh. Needs the built targets attnd, attnd_bench and attnd_server_race, and the packages of
requirements.txt for the peers; what is missing or fails is "not measured". The machine should do nothing else meanwhile.
Server and client each have a CPU of their own. The results file is written after each measurement, so that a run that is
ended early keeps what it has, marked "complete": false.
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
from typing import Any

import machine
import page
import results as results_file
import servers
import wire_report
from results import NotMeasured

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
    "local socket, in place": ["--transport=local"],
    "local socket, sent or copied": ["--transport=local", "--copy"],
}
SETTINGS = {
    "n2048": ["--shape=1,8,2048,64"],
    "n2048-bf16": ["--shape=1,8,2048,64", "--dtype=bf16"],
    "smallest": ["--shape=1,8,1,64"],
    "n128": ["--shape=1,8,128,64"],
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        help="default: bench/results/wire.json, or BUILD/peers-logs/wire.json with --print",
    )
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/performance.md")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one turn")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each entrant")
    parser.add_argument("--patience", type=float, default=300, help="seconds for one program to end")
    parser.add_argument("--print", action="store_true", help="print the tables instead of writing the page")
    parser.add_argument("--allow-dirty", action="store_true", help="write the page although the tree has changes")
    options = parser.parse_args()
    if options.results is None:
        options.results = options.build / "peers-logs/wire.json" if options.print else ROOT / "bench/results/wire.json"
    return options


class Run:
    """One run of all measurements: its settings, and its results in a file that grows with each of them."""

    def __init__(self, options: argparse.Namespace, facts: dict[str, str], server_cpu: int, client_cpu: int):
        self.options = options
        self.server_cpu = server_cpu
        self.client_cpu = client_cpu
        self.logs = options.build / "peers-logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.results: dict[str, Any] = {"echo": {}, "calls": {}, "race": {}, "memory": {"error": "not run"}}
        self._facts = facts

    def record(self, value: dict, *keys: str) -> None:
        """Puts `value` where the keys lead, and writes the file."""
        at = self.results
        for key in keys[:-1]:
            at = at.setdefault(key, {})
        at[keys[-1]] = value
        self.write(complete=False)
        print(f"{', '.join(keys)}: done", file=sys.stderr, flush=True)

    def write(self, complete: bool) -> None:
        results_file.write(self.options.results, {"complete": complete, "facts": self._facts, **self.results})

    def json_lines(self, command: list[str], seconds: float = 0.0) -> list[dict]:
        """What a program that works for about `seconds` prints. Raises NotMeasured."""
        name = pathlib.Path(command[0] if command[0] != sys.executable else command[1]).name
        patience = seconds + self.options.patience
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
        except subprocess.TimeoutExpired as error:
            raise NotMeasured(f"{name} did not end within {patience:.0f} s") from error
        except OSError as error:
            raise NotMeasured(f"{name}: {error.strerror}") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise NotMeasured(f"{name}: {lines[-1] if lines else f'status {done.returncode}'}")
        try:
            lines = [json.loads(line) for line in done.stdout.splitlines()]
        except ValueError as error:
            raise NotMeasured(f"{name} printed what is not JSON") from error
        if not lines:
            raise NotMeasured(f"{name} printed nothing")
        return lines

    def wire(self, rounds: int, flags: list[str]) -> dict:
        """One line of attnd_bench wire."""
        options = self.options
        command = [str(options.build / "bench/attnd_bench"), "wire"]
        command += [f"--server_cpu={self.server_cpu}", f"--client_cpu={self.client_cpu}"]
        command += [f"--rounds={rounds}", f"--turn_seconds={options.seconds}", *flags]
        return self.json_lines(command, 4 * rounds * options.seconds)[0]

    def flight(self, transport: str, size: int) -> dict:
        script = pathlib.Path(__file__).with_name("flight_echo.py")
        command = [sys.executable, str(script), "--transport", transport, "--bytes", str(size << 20)]
        command += ["--seconds", str(self.options.seconds)]
        command += ["--server-cpu", str(self.server_cpu), "--client-cpu", str(self.client_cpu)]
        return self.json_lines(command, self.options.seconds)[0]

    def race(self, n: int, seconds: float, rounds: int, targets: list[str]) -> list[dict]:
        """The C++ client's line for each server, called in turns."""
        command = [str(self.options.build / "bench/attnd_server_race"), f"--shape=1,8,{n},64"]
        command += [f"--cpu={self.client_cpu}", f"--seconds={seconds}", f"--rounds={rounds}", *targets]
        return self.json_lines(command, rounds * len(targets) * seconds)


def summary(lines: list[dict]) -> dict[str, float]:
    return {
        "min_ms": min(line["min_ms"] for line in lines),
        "p50_ms": statistics.median(line["p50_ms"] for line in lines),
        "huge_fraction": min(line["huge_fraction"] for line in lines),
    }


def echo_once(run: Run, size: int, transport: str) -> dict[str, dict]:
    """The wire without arithmetic, in turns: entrant -> summary. An entrant that fails is out; the others go on."""
    turns: dict[str, list[dict]] = {"attnd, one message": [], "attnd, pieces": [], "Arrow Flight": [], "plain socket": []}
    failed: dict[str, dict] = {}

    def ours(mode: str) -> dict:
        flags = ["--echo", f"--shape=1,8,{LENGTH_OF[size]},64", f"--transport={transport}", f"--mode={mode}"]
        line = run.wire(1, flags)
        socket = {key: line[f"socket_{key}"] for key in ("min_ms", "p50_ms", "huge_fraction")}
        turns["plain socket"].append(socket)
        return line

    entrants = {
        "attnd, one message": lambda: ours("unary"),
        "attnd, pieces": lambda: ours("stream"),
        "Arrow Flight": lambda: run.flight(transport, size),
    }
    for _ in range(run.options.rounds):
        for name, turn in entrants.items():
            if name in failed:
                continue
            try:
                turns[name].append(turn())
            except NotMeasured as error:
                failed[name] = {"error": str(error)}
    if not turns["plain socket"]:  # It is measured by the same program.
        failed["plain socket"] = failed["attnd, one message"]
    return {name: failed.get(name) or summary(lines) for name, lines in turns.items()}


def echo(run: Run) -> None:
    """MiB of a tensor -> transport -> entrant -> summary."""
    for size in LENGTH_OF:
        for transport in ("tcp", "uds"):
            run.record(echo_once(run, size, transport), "echo", str(size), transport)


def calls(run: Run) -> None:
    """Calls with arithmetic: setting -> name -> line."""
    for setting, shape in SETTINGS.items():
        for name, flags in CALLS.items():
            if setting in ("smallest", "n128") and not ("one message" in name or "local" in name):
                continue
            try:
                line = run.wire(run.options.rounds, [*shape, *flags])
            except NotMeasured as error:
                line = {"error": str(error)}
            run.record(line, "calls", setting, name)


def race_once(run: Run, n: int, targets: dict[str, str]) -> dict[str, dict]:
    """Server -> its line. If they cannot race, attnd runs alone."""
    seconds, rounds = run.options.seconds, run.options.rounds
    try:
        return dict(zip(targets, run.race(n, seconds, rounds, list(targets.values()))))
    except NotMeasured as error:
        reason = {"error": str(error)}
    lines = {name: reason for name in targets}
    if len(targets) > 1:
        with contextlib.suppress(NotMeasured):
            lines["attnd"] = run.race(n, seconds, rounds, [targets["attnd"]])[0]
    return lines


def race(run: Run) -> None:
    """Both servers, called in turns by the C++ client: length -> server -> its line."""
    missing: dict[str, dict] = {}
    starts = {
        "attnd": lambda: servers.attnd(run.options.build / "server/attnd", [run.server_cpu], run.logs / "attnd.log"),
        "python": lambda: servers.python_server([run.server_cpu], run.logs / "python_server.log"),
    }
    with contextlib.ExitStack() as stack:
        targets = {}
        for name, start in starts.items():
            try:
                targets[name] = stack.enter_context(start())
            except NotMeasured as error:
                missing[name] = {"error": str(error)}
        for n in RACE_LENGTHS:
            lines = race_once(run, n, targets) if "attnd" in targets else {"python": {"error": "attnd did not start"}}
            run.record({**lines, **missing}, "race", str(n))


def memory(run: Run) -> None:
    """How much a call of n = 8192 raises the server's peak of resident memory, in MiB."""
    binary, log = run.options.build / "server/attnd", run.logs / "attnd-memory.log"
    try:
        with servers.attnd_process(binary, [run.server_cpu], log) as (target, pid):
            peak = []
            for n in (16, 8192):
                run.race(n, 1, 1, [target])
                peak.append(machine.peak_mebibytes(pid))
        run.record({"raised_mib": peak[1] - peak[0]}, "memory")
    except (NotMeasured, OSError, ValueError) as error:  # The last two: the server ended while its peak was read.
        run.record({"error": str(error)}, "memory")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    options = arguments()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        sys.exit("needs two CPUs: one for the server, one for the client")
    facts = {
        **machine.describe(),
        **{name: version(name) for name in ("grpcio", "torch", "pyarrow")},
        "date": datetime.date.today().isoformat(),
    }
    if not options.print:
        machine.expect_clean(facts, options.allow_dirty)
    run = Run(options, facts, server_cpu=cpus[-1], client_cpu=cpus[0])
    for measure in (echo, calls, race, memory):
        measure(run)
    run.write(complete=True)
    body = wire_report.section(facts, run.results)
    page.show(options, "wire table", body)


if __name__ == "__main__":
    main()
