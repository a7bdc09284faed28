"""Measures the Python client beside the C++ client, in one run and in turns; writes the table of docs/performance.md.

Run it through bench/python_table.sh. The server has a CPU of its own, and so have the clients, but for the calls inside
a model: there torch, the caller and the server share all CPUs, as they do where a model runs. What fails is "not
measured". The results file is written after each measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import machine
import page
import results as results_file
from line_process import LineProcess
from results import NotMeasured, figure, not_measured

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = "t5-tiny"
HEADS, HEAD_DIM = 8, 64
LENGTHS = (1, 128, 2048)
DOORS = ("local", "unix", "tcp")
DOOR_NAMES = {"local": "local door", "unix": "gRPC, Unix socket", "tcp": "gRPC, TCP"}
# Figure of the results, goal, and what it says.
GOALS = (
    (("calls", "128", "local", "python_of_cpp"), 1.8, "×", "Python against C++, local door, n = 128"),
    (("calls", "2048", "local", "python_of_cpp"), 1.05, "×", "Python against C++, local door, n = 2048"),
    (("calls", "2048", "tcp", "python_of_cpp"), 1.3, "×", "Python against C++, TCP, n = 2048"),
    (("model", "local", "beyond_kernel_p50_ms"), 0.25, " ms", "Python inside a model, local door, beyond the kernel"),
    (("copies", "bytes"), 0, " bytes", "Copies of ours of tensors in shared memory"),
    (("import", "p50_s"), 0.25, " s", "import attnd, beyond grpcio's and numpy's"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument(
        "--results", type=pathlib.Path, help="default: bench/results/python.json, or BUILD/python.json with --print"
    )
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/performance.md")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one turn")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each entrant")
    parser.add_argument("--print", action="store_true", help="print the table instead of writing the page")
    parser.add_argument("--allow-dirty", action="store_true", help="write the page although the tree has changes")
    # What this program starts itself as.
    for name, kind in (("--worker", str), ("--target", str), ("--door", str), ("--length", int), ("--cpu", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.results is None:
        options.results = options.build / "python.json" if options.print else ROOT / "bench/results/python.json"
    return options


@contextlib.contextmanager
def server(options: argparse.Namespace, cpus: list[int]) -> Iterator[dict[str, str]]:
    """attnd with a thread for each of these CPUs; gives the target of each door."""
    binary = options.build / "server" / "attnd"
    if not binary.exists():
        sys.exit(f"{binary} is not built")
    pin = functools.partial(os.sched_setaffinity, 0, cpus)
    with tempfile.TemporaryDirectory() as folder:
        unix, log = f"unix:{folder}/s", pathlib.Path(folder, "log")
        command = [str(binary), f"--listen={unix},127.0.0.1:0", "--shared_memory", f"--threads={len(cpus)}"]
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=pin)  # noqa: PLW1509
        try:
            tcp = ""
            for _ in range(1200):
                listening = [word for word in log.read_text().split() if word.startswith("127.0.0.1:")]
                if listening or process.poll() is not None:
                    tcp = listening[0].rstrip(",") if listening else ""
                    break
                time.sleep(0.05)
            if not tcp:
                sys.exit(f"attnd does not serve: {log.read_text()}")
            yield {"local": unix, "unix": unix, "tcp": tcp}
        finally:
            process.terminate()
            process.wait()


def worker_command(kind: str, target: str, door: str, length: int, cpu: int) -> list[str]:
    return [
        *(sys.executable, "-B", __file__, f"--worker={kind}", f"--target={target}", f"--door={door}"),
        *(f"--length={length}", f"--cpu={cpu}"),
    ]


def cpp_command(options: argparse.Namespace, target: str, door: str, length: int, cpu: int) -> list[str]:
    return [
        *(str(options.build / "bench/attnd_call_loop"), f"--target={target}", f"--model={MODEL}", f"--cpu={cpu}"),
        *(f"--shape=1,{HEADS},{length},{HEAD_DIM}", f"--in_place={'true' if door == 'local' else 'false'}"),
    ]


def in_turns(options: argparse.Namespace, commands: dict[str, list[str]]) -> dict[str, dict[str, list[float]]]:
    """The times of each entrant; one round is not counted."""
    loops = {name: LineProcess(command) for name, command in commands.items()}
    times: dict[str, dict[str, list[float]]] = {name: {} for name in commands}
    try:
        for turn in range(options.rounds + 1):
            for name, loop in loops.items():
                for key, values in loop.ask(f"{options.seconds}").items():
                    if turn > 0:
                        times[name].setdefault(key, []).extend(values)
    finally:
        for loop in loops.values():
            loop.close()
    return times


def summary(times: dict[str, list[float]]) -> dict[str, float]:
    calls, computed = sorted(times["ms"]), times["compute_ms"]
    beyond = [call - kernel for call, kernel in zip(times["ms"], computed)]
    return {
        "calls": len(calls),
        "min_ms": calls[0],
        "p50_ms": statistics.median(calls),
        "p99_ms": calls[len(calls) * 99 // 100],
        "compute_p50_ms": statistics.median(computed),
        "beyond_kernel_p50_ms": statistics.median(beyond),
    }


def measure_calls(options: argparse.Namespace, results: dict[str, Any], cpus: list[int]) -> None:
    """C++ and Python through each door, all in turns."""
    with server(options, cpus[-1:]) as targets:
        for length in LENGTHS:
            entries: dict[str, Any] = {}
            results["calls"][str(length)] = entries
            commands = {}
            for door in DOORS:
                commands[f"{door} cpp"] = cpp_command(options, targets[door], door, length, cpus[0])
                commands[f"{door} python"] = worker_command("calls", targets[door], door, length, cpus[0])
            try:
                times = in_turns(options, commands)
            except (NotMeasured, OSError) as error:
                entries.update({door: {"error": str(error)} for door in DOORS})
                continue
            for door in DOORS:
                cpp, python = summary(times[f"{door} cpp"]), summary(times[f"{door} python"])
                ratio = python["p50_ms"] / cpp["p50_ms"]
                entries[door] = {"cpp": cpp, "python": python, "python_of_cpp": ratio}
            results_file.write(options.results, results)


def measure_model(options: argparse.Namespace, results: dict[str, Any], cpus: list[int]) -> None:
    """Calls between torch's matmuls, nothing pinned."""
    if importlib.util.find_spec("torch") is None:
        results["model"] = {door: {"error": "torch is not installed"} for door in DOORS}
        return
    with server(options, cpus) as targets:
        commands = {door: worker_command("model", targets[door], door, 128, -1) for door in DOORS}
        try:
            times = in_turns(options, commands)
        except NotMeasured as error:
            results["model"] = {door: {"error": str(error)} for door in DOORS}
            return
        results["model"] = {door: summary(times[door]) for door in DOORS}


def measure_copies(options: argparse.Namespace, results: dict[str, Any], cpus: list[int]) -> None:
    """What the client counts as copied in a call, n = 128."""
    with server(options, cpus) as targets:
        line = subprocess.run(
            worker_command("copies", targets["local"], "local", 128, -1), capture_output=True, text=True, check=False
        ).stdout
    results["copies"] = json.loads(line) if line else {"error": "the worker failed"}


def measure_import(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """The time of `import attnd` in a process that has imported grpc and numpy."""
    code = (
        "import time, grpc, numpy; start = time.perf_counter(); import attnd; print(time.perf_counter() - start)\n"
        "import sys; assert 'torch' not in sys.modules"
    )
    times = []
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            results["import"] = {"error": done.stderr.strip().rpartition("\n")[2]}
            return
        times.append(float(done.stdout))
    results["import"] = {"p50_s": statistics.median(times), "min_s": min(times), "times": len(times)}


def goal_rows(results: dict[str, Any]) -> Iterator[list[str]]:
    for keys, bound, unit, what in GOALS:
        try:
            value = figure(results, *keys)
        except NotMeasured as missing:
            yield [what, f"≤ {bound:g}{unit}", "–", not_measured(missing)]
            continue
        shown = f"{value:.0f}" if unit == " bytes" else f"{value:.3f}"
        yield [what, f"≤ {bound:g}{unit}", f"{shown}{unit}", "reached" if value <= bound else "**not reached**"]


def call_rows(results: dict[str, Any]) -> Iterator[list[str]]:
    for length, doors in results["calls"].items():
        # Of a call that travels in pieces the server's compute times overlap, so that their sum says nothing here.
        kernel = doors["local"].get("python", {}).get("compute_p50_ms", float("nan"))
        for door, entry in doors.items():
            head = [length, DOOR_NAMES[door]]
            if "error" in entry:
                yield [*head, not_measured(entry["error"]), *["–"] * 4]
                continue
            cells = [f"{entry[who]['p50_ms']:.3f} / {entry[who]['min_ms']:.3f}" for who in ("cpp", "python")]
            beyond = entry["python"]["p50_ms"] - kernel
            yield [*head, *cells, f"{entry['python_of_cpp']:.2f}×", f"{kernel:.3f}", f"{beyond:.3f}"]


def model_rows(results: dict[str, Any]) -> Iterator[list[str]]:
    for door, line in results["model"].items():
        if "error" in line:
            yield [DOOR_NAMES[door], not_measured(line["error"]), *["–"] * 3]
        else:
            keys = ("p50_ms", "p99_ms", "compute_p50_ms", "beyond_kernel_p50_ms")
            yield [DOOR_NAMES[door], *(f"{line[key]:.3f}" for key in keys)]


def section(results: dict[str, Any]) -> str:
    return "\n\n".join(
        [
            page.table(("", ""), results["machine"].items()),
            "### Goals of the Python client",
            page.table(("what", "goal", "by p50", ""), goal_rows(results)),
            "### Python beside C++",
            page.table(
                ("n", "through", "C++ ms: p50 / min", "Python ms: p50 / min", "ratio", "kernel ms", "Python beyond it"),
                call_rows(results),
            ),
            "### Python inside a model, n = 128",
            page.table(("through", "p50 ms", "p99 ms", "kernel p50 ms", "beyond it, p50 ms"), model_rows(results)),
        ]
    )


def call_of(options: argparse.Namespace, shared: bool) -> tuple[Any, Any]:
    """A client, and a function that makes the call once and returns the server's compute time in ms."""
    import numpy as np

    import attnd

    local = options.door == "local"
    client = attnd.Client(options.target, shared_memory=local, local_calls=local)
    shape = (1, HEADS, options.length, HEAD_DIM)
    random = np.random.default_rng(7)
    q, k, v, out = (client.empty(shape) if shared else np.empty(shape, np.float32) for _ in range(4))
    for tensor in (q, k, v):
        tensor[...] = random.normal(0, 0.4, shape)
    request = attnd.ComputeRequest(q, k, v, MODEL, out=out)

    def call() -> float:
        return client.compute(request).compute_time * 1e3

    call()
    expected = {"local": "local", "unix": "grpc", "tcp": "grpc"}[options.door]
    travelled = client.compute(request).transport
    if travelled != expected:
        sys.exit(f"a call through {options.door} went by {travelled!r}, expected {expected!r}")
    return client, call


def answer_turns(call: Any, before: Any) -> None:
    for line in sys.stdin:
        end = time.perf_counter() + float(line)
        turn: dict[str, list[float]] = {"ms": [], "compute_ms": []}
        while True:
            before()
            start = time.perf_counter()
            computed = call()
            now = time.perf_counter()
            turn["ms"].append((now - start) * 1e3)
            turn["compute_ms"].append(computed)
            if now >= end:
                break
        print(json.dumps(turn), flush=True)


def count_copies(options: argparse.Namespace) -> dict[str, int]:
    """Bytes that the client copies to and from shared memory in a call: with tensors of its own, and with others."""
    counts = {}
    for name, shared in (("bytes", True), ("bytes_of_other_arrays", False)):
        client, call = call_of(options, shared)
        stager = client._core.transports[0]._host.stager
        before = stager.copied_in + stager.copied_out
        call()
        counts[name] = stager.copied_in + stager.copied_out - before
    return counts


def work(options: argparse.Namespace) -> None:
    """What a worker does."""
    if options.cpu >= 0:
        os.sched_setaffinity(0, [options.cpu])
    shared = options.door == "local"
    if options.worker == "copies":
        print(json.dumps(count_copies(options)))
        return
    _, call = call_of(options, shared)
    matmuls: Any = lambda: None  # noqa: E731
    if options.worker == "model":
        import torch

        hidden, weights = torch.randn(128, 512), torch.randn(512, 2048)
        back = torch.randn(2048, 512)

        def matmuls() -> None:
            torch.relu(hidden @ weights) @ back

    answer_turns(call, matmuls)


def main() -> None:
    options = arguments()
    if options.worker:
        work(options)
        return
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        sys.exit("needs two CPUs: one for the server, one for the client")
    facts = machine.with_packages("grpcio", "protobuf", "numpy", "torch")
    if not options.print:
        machine.expect_clean(facts, options.allow_dirty)
    results: dict[str, Any] = {"machine": facts, "complete": False, "calls": {}, "model": {}}
    measure_import(options, results)
    measure_copies(options, results, cpus)
    measure_calls(options, results, cpus)
    measure_model(options, results, cpus)
    results["complete"] = True
    results_file.write(options.results, results)
    body = section(results)
    page.show(options, "python table", body)


if __name__ == "__main__":
    main()
