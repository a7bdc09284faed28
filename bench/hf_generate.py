"""Measures a Hugging Face T5's generate() with its attention in attnd, beside eager, sdpa and CTranslate2.

Run it through bench/hf_table.sh --generate. All ways run in turns, with as many torch threads as there are CPUs; the
server has as many threads and shares the CPUs, as it would on one host. What fails is "not measured". The results file
is written after each measurement.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import hf_generate_report as report
import machine
import page
import results as results_file
from hf_bench import ROOT, Worker
from python_bench import server
from results import NotMeasured


class Case(NamedTuple):
    """New tokens of a call are those of all, NEW."""

    batch: int
    tokens: int
    beams: int
    rounds: int


NEW = 64
CASES = {"greedy": Case(1, 512, 1, 8), "beams-512": Case(8, 512, 4, 3), "beams-2048": Case(4, 2048, 4, 3)}
MEMORY_CASE, MEMORY_STEPS = "beams-2048", 4


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        help="default: bench/results/hf_generate.json, or BUILD/hf_generate.json with --print",
    )
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/transformers.md")
    parser.add_argument("--rounds", type=float, default=1.0, help="factor of the number of rounds")
    parser.add_argument("--new", type=int, default=NEW, help="new tokens of a call; the page has those of the default")
    parser.add_argument("--ways", nargs="*", default=report.WAYS, choices=report.WAYS, help="default: all")
    parser.add_argument(
        "--only", nargs="*", choices=(*CASES, "memory"), help="cases; the page is then only printed, as with --ways"
    )
    parser.add_argument("--print", action="store_true", help="print the tables instead of writing the page")
    parser.add_argument("--allow-dirty", action="store_true", help="write the page although the tree has changes")
    options = parser.parse_args()
    if options.only or options.new != NEW or tuple(options.ways) != report.WAYS:
        options.print = True
    if options.results is None:
        folder = options.build if options.print else ROOT / "bench/results"
        options.results = folder / "hf_generate.json"
    return options


class Workers:
    """The processes that run the ways: one of torch's, and one for each of CTranslate2's number types."""

    def __init__(self, targets: dict[str, str], threads: int) -> None:
        self._targets = targets
        self._threads = threads
        self._workers: dict[str, Worker] = {}

    def torch(self) -> Worker:
        flags = (f"--local={self._targets['local']}", f"--tcp={self._targets['tcp']}", f"--threads={self._threads}")
        return Worker("hf_generate_worker.py", *flags)

    def ask(self, way: str, **question: Any) -> Any:
        """Of the way's process, which is started for its first question."""
        peer, _, kind = way.partition(" ")
        is_peer = peer == "ctranslate2"
        name = way if is_peer else "torch"
        if name not in self._workers:
            threads = f"--threads={self._threads}"
            self._workers[name] = Worker("hf_generate_ctranslate2.py", threads) if is_peer else self.torch()
        return self._workers[name].ask(run=kind if is_peer else way, **question)

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()


def summary(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Best and median of each time."""
    found: dict[str, Any] = {"calls": len(calls)}
    for key in calls[0]:
        if key.endswith("_ms"):
            times = [call[key] for call in calls]
            found[key] = {"min": min(times), "p50": statistics.median(times)}
    return found


def measure_case(options: argparse.Namespace, workers: Workers, case: Case, results: dict[str, Any]) -> Iterator[None]:
    """Every way in turns, into `results`; yields after each call. A call of two tokens goes before each way's first."""
    calls: dict[str, list[dict[str, Any]]] = {way: [] for way in options.ways}
    expected: list[list[int]] = []
    size = {"batch": case.batch, "tokens": case.tokens, "beams": case.beams}
    results.update(size, new=options.new)
    for turn in range(max(1, round(case.rounds * options.rounds))):
        for way in options.ways:
            if "error" in results.get(way, ()):
                continue
            try:
                if turn == 0:
                    workers.ask(way, **size, new=2)
                call = workers.ask(way, **size, new=options.new)
            except NotMeasured as error:
                results[way] = {"error": str(error)}
                continue
            made = call.pop("tokens")
            calls[way].append(call)
            results[way] = summary(calls[way])
            if way == "eager":
                expected = made
            if way != "free" and expected:
                results[way]["same_tokens"] = sum(one == other for one, other in zip(made, expected))
            yield
        results["distinct_tokens"] = len({token for row in expected for token in row})


def measure_memory(options: argparse.Namespace, workers: Workers) -> dict[str, Any]:
    """Each way in a process of its own."""
    case = CASES[MEMORY_CASE]
    found: dict[str, Any] = {}
    for way in ("eager", "local", "tcp"):
        if way not in options.ways:
            continue
        worker = workers.torch()
        try:
            found[way] = worker.ask(
                memory=way, batch=case.batch, tokens=case.tokens, beams=case.beams, new=MEMORY_STEPS
            )
        except NotMeasured as error:
            found[way] = {"error": str(error)}
        worker.close()
    return found


def main() -> None:
    options = arguments()
    cpus = sorted(os.sched_getaffinity(0))
    facts = machine.with_packages("torch", "transformers", "ctranslate2", "grpcio", "numpy")
    if not options.print:
        machine.expect_clean(facts, options.allow_dirty)
    results: dict[str, Any] = {"machine": facts, "complete": False, "cases": {}, "memory": {}}
    with server(options, cpus) as targets:
        workers = Workers(targets, len(cpus))
        if not options.only or "memory" in options.only:
            results["memory"] = measure_memory(options, workers)
            results_file.write(options.results, results)
        try:
            for name, case in CASES.items():
                if options.only and name not in options.only:
                    continue
                results["cases"][name] = {}
                for _ in measure_case(options, workers, case, results["cases"][name]):
                    results_file.write(options.results, results)
        finally:
            workers.close()
    results["complete"] = True
    results_file.write(options.results, results)
    page.show(options, "generate table", report.section(results))


if __name__ == "__main__":
    main()
