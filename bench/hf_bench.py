"""Measures a Hugging Face T5 encoder whose attention attnd computes, beside the same one by eager, sdpa and CTranslate2.

Run it through bench/hf_table.sh. All ways run in one process, in turns, with as many torch threads as there are CPUs; the
server has as many threads and shares the CPUs, as it would on one host. What fails is "not measured". The results file is
written after each measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import hf_curve
import machine
import page
import results as results_file
from line_process import LineProcess
from python_bench import server
from results import NotMeasured, figure, not_measured

ROOT = pathlib.Path(__file__).resolve().parents[1]
WAYS = ("eager", "sdpa", "free", "local", "tcp")
TITLES = {"eager": "eager", "sdpa": "sdpa", "local": "attnd", "tcp": "attnd, TCP", "free": "no attention at all"}
LAYERS, WIDTH = 6, 512
# Batch, tokens, rounds.
CASES = ((1, 64, 40), (1, 128, 40), (8, 128, 12), (1, 256, 30), (1, 512, 20), (1, 1024, 10), (1, 2048, 8), (1, 4096, 4))
SPEEDUPS = {"1x128": 0.95, "8x128": 0.97, "1x512": 1.05, "1x2048": 1.9, "1x4096": 2.4}
# Beyond the model without attention and the server's compute time a layer may take this, and so long for its tensors.
LAYER_MS, GIGABYTES_PER_SECOND = 0.4, 6.0
MEMORY_CASE = (1, 4096)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument(
        "--results", type=pathlib.Path, help="default: bench/results/hf.json, or BUILD/hf.json with --print"
    )
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/transformers.md")
    parser.add_argument("--curve", type=pathlib.Path, default=ROOT / "docs/images/transformers_speedup.svg")
    parser.add_argument("--rounds", type=float, default=1.0, help="factor of the number of rounds")
    parser.add_argument("--only", nargs="*", help="cases, such as 1x128; without memory; the page is then only printed")
    parser.add_argument("--print", action="store_true", help="print the table instead of writing page and curve")
    parser.add_argument("--allow-dirty", action="store_true", help="write the page although the tree has changes")
    options = parser.parse_args()
    unknown = set(options.only or ()) - {case_name(batch, tokens) for batch, tokens, _ in CASES}
    if unknown:
        parser.error(f"--only: unknown cases {', '.join(sorted(unknown))}")
    options.print = options.print or bool(options.only)
    if options.results is None:
        options.results = options.build / "hf.json" if options.print else ROOT / "bench/results/hf.json"
    return options


class Worker:
    """A script of this folder that answers questions as JSON."""

    def __init__(self, script: str, *flags: str) -> None:
        self._process = LineProcess([sys.executable, "-B", str(ROOT / "bench" / script), *flags], script)

    def ask(self, **question: Any) -> Any:
        """Raises NotMeasured if the process has ended."""
        return self._process.ask(json.dumps(question))

    def close(self) -> None:
        self._process.close()


def case_name(batch: int, tokens: int) -> str:
    return f"{batch}x{tokens}"


def summary(passes: list[dict[str, float]]) -> dict[str, float]:
    times = sorted(one["ms"] for one in passes)
    found = {"passes": len(times), "min_ms": times[0], "p50_ms": statistics.median(times)}
    if "computed_ms" in passes[0]:
        # Of the fastest pass, so that it can be taken from that pass's time.
        found["computed_ms"] = min(passes, key=lambda one: one["ms"])["computed_ms"]
    return found


def measure_case(batch: int, tokens: int, rounds: int, torch: Worker, peer: Worker) -> dict[str, Any]:
    """Every way in turns; the first round is not counted."""
    passes: dict[str, list[dict[str, float]]] = {}
    found: dict[str, Any] = {}
    for turn in range(rounds + 1):
        answers = torch.ask(run=list(WAYS), batch=batch, tokens=tokens)
        if "ctranslate2" not in found:
            try:
                answers["ctranslate2"] = peer.ask(batch=batch, tokens=tokens)
            except NotMeasured as error:
                found["ctranslate2"] = {"error": str(error)}
        for name, answer in answers.items():
            if turn > 0:
                passes.setdefault(name, []).append(answer)
    found.update({name: summary(each) for name, each in passes.items() if name not in found})
    found["difference"] = torch.ask(difference="local", batch=batch, tokens=tokens)
    return found


def measure_memory(targets: dict[str, str], threads: int) -> dict[str, Any]:
    """Peak memory of a pass above the weights, each way in a process of its own."""
    found: dict[str, Any] = {}
    batch, tokens = MEMORY_CASE
    for name in ("eager", "sdpa", "local"):
        worker = torch_worker(targets, threads)
        try:
            found[name] = worker.ask(memory=name, batch=batch, tokens=tokens)
        except NotMeasured as error:
            found[name] = {"error": str(error)}
        worker.close()
    return found


def torch_worker(targets: dict[str, str], threads: int) -> Worker:
    flags = (f"--local={targets['local']}", f"--tcp={targets['tcp']}", f"--threads={threads}")
    return Worker("hf_worker.py", *flags)


def best(results: dict[str, Any], case: str, way: str) -> float:
    return figure(results, "cases", case, way, "min_ms")


def speedup(results: dict[str, Any], case: str, way: str = "local") -> float:
    """Against the faster of transformers' own."""
    return min(best(results, case, "eager"), best(results, case, "sdpa")) / best(results, case, way)


def beyond(results: dict[str, Any], case: str) -> float:
    """Milliseconds a layer beyond the model without attention and what the server computed."""
    computed = figure(results, "cases", case, "local", "computed_ms")
    return (best(results, case, "local") - best(results, case, "free") - computed) / LAYERS


def allowed_beyond(case: str) -> float:
    batch, tokens = (int(part) for part in case.split("x"))
    tensor_bytes = 4 * batch * tokens * WIDTH * 4  # q, k, v and the output, fp32
    return LAYER_MS + tensor_bytes / GIGABYTES_PER_SECOND / 1e6


def goals(results: dict[str, Any]) -> Iterator[list[str]]:
    def row(what: str, bound: float, unit: str, at_least: bool, measured: Callable[[], float]) -> list[str]:
        goal = f"{'≥' if at_least else '≤'} {bound:.3g}{unit}"
        try:
            found = measured()
        except NotMeasured as missing:
            return [what, goal, "–", not_measured(missing)]
        reached = found >= bound if at_least else found <= bound
        return [what, goal, f"{found:.3f}{unit}", "reached" if reached else "**not reached**"]

    for case, bound in SPEEDUPS.items():
        what = f"{case.replace('x', ' × ')}, against the faster of eager and sdpa"
        yield row(what, bound, "×", True, lambda case=case: speedup(results, case))
    for case in SPEEDUPS:
        what = f"{case.replace('x', ' × ')}, a layer beyond no attention and the server's compute time"
        yield row(what, allowed_beyond(case), " ms", False, lambda case=case: beyond(results, case))

    def against_ctranslate2() -> float:
        return best(results, "1x2048", "ctranslate2") / best(results, "1x2048", "local")

    def tcp_of_local() -> float:
        return best(results, "1x2048", "local") / best(results, "1x2048", "tcp")

    def memory() -> float:
        return figure(results, "memory", "local", "mib") / figure(results, "memory", "eager", "mib")

    yield row("1 × 2048, against CTranslate2 in fp32", 1.6, "×", True, against_ctranslate2)
    yield row("1 × 2048, by TCP of the local socket's speed", 0.9, "×", True, tcp_of_local)
    yield row("1 × 4096, memory of the client above the weights, of eager's", 0.15, "×", False, memory)


def case_rows(results: dict[str, Any]) -> Iterator[list[str]]:
    for case, entry in results["cases"].items():
        cells = [case.replace("x", " × ")]
        for way in ("eager", "sdpa", "ctranslate2", "local", "tcp", "free"):
            try:
                cells.append(f"{figure(entry, way, 'min_ms'):.1f} / {figure(entry, way, 'p50_ms'):.1f}")
            except NotMeasured:
                cells.append("–")
        with contextlib.suppress(NotMeasured):
            cells += [f"{figure(entry, 'local', 'computed_ms'):.1f}", f"{figure(entry, 'difference'):.1e}"]
            cells += [f"{speedup(results, case):.2f}×"]
        yield cells


def memory_rows(results: dict[str, Any]) -> Iterator[list[str]]:
    for way, entry in results["memory"].items():
        shown = not_measured(entry["error"]) if "error" in entry else f"{entry['mib']:.0f} MiB"
        yield [TITLES[way], shown]


def section(results: dict[str, Any]) -> str:
    header = ("batch × tokens", "eager", "sdpa", "CTranslate2", "attnd", "attnd, TCP", "no attention at all")
    header += ("server computed", "largest difference", "speed-up")
    batch, tokens = MEMORY_CASE
    return "\n\n".join(
        [
            page.table(("", ""), results["machine"].items()),
            "Milliseconds of one pass of the encoder, best / median. \"Server computed\" is the server's compute time "
            "in the best pass, of all layers. The difference is from eager's hidden states, the speed-up against the "
            "faster of eager and sdpa.",
            page.table(header, case_rows(results)),
            f"Memory of the client's process above the weights, {batch} × {tokens}:",
            page.table(("", "peak"), memory_rows(results)),
            "### Goals",
            page.table(("what", "goal", "by best", ""), goals(results)),
        ]
    )


def main() -> None:
    options = arguments()
    cpus = sorted(os.sched_getaffinity(0))
    facts = machine.with_packages("torch", "transformers", "ctranslate2", "grpcio", "numpy")
    if not options.print:
        machine.expect_clean(facts, options.allow_dirty)
    results: dict[str, Any] = {"machine": facts, "complete": False, "cases": {}, "memory": {}}
    with server(options, cpus) as targets:
        if not options.only:
            results["memory"] = measure_memory(targets, len(cpus))
        torch, peer = torch_worker(targets, len(cpus)), Worker("hf_ctranslate2.py", f"--threads={len(cpus)}")
        try:
            for batch, tokens, rounds in CASES:
                if options.only and case_name(batch, tokens) not in options.only:
                    continue
                rounds = max(1, round(rounds * options.rounds))
                results["cases"][case_name(batch, tokens)] = measure_case(batch, tokens, rounds, torch, peer)
                results_file.write(options.results, results)
        finally:
            torch.close()
            peer.close()
    results["complete"] = True
    results_file.write(options.results, results)
    page.show(options, "transformers table", section(results))
    if not options.print:
        hf_curve.draw(results, options.curve)


if __name__ == "__main__":
    main()
