"""Measures our attention kernel beside PyTorch, ONNX Runtime and ggml, and writes the kernel's table.

Run it through bench/kernel_table.sh. Needs a built attnd_bench; bench/setup_peers.sh installs the peers, and one that is
missing or fails is "not measured". The machine should do nothing else meanwhile. The results file is written after each
contest, so that a run that is ended early keeps what it has, marked "complete": false.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import pathlib
import sys
import time

import json_worker
import kernel_goals
import kernel_plan
import kernel_report
import machine
import page
import results as results_file
from contest import Arena

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/attnd_bench")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        help="default: bench/results/kernel.json, or build/peers-logs/kernel.json where the page is not written",
    )
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/performance.md")
    parser.add_argument("--logs", type=pathlib.Path, default=ROOT / "build/peers-logs")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one entrant's block")
    parser.add_argument("--rounds", type=int, default=0, help="blocks of each entrant; 0: what the plan says")
    parser.add_argument("--only", nargs="*", help="names of contests; the page is then only printed, not written")
    parser.add_argument("--only-ours", action="store_true", help="leave the peers out; prints the page")
    parser.add_argument("--patience", type=float, default=json_worker.PATIENCE_SECONDS, help="seconds for an answer")
    parser.add_argument("--allow-dirty", action="store_true", help="write the page although the tree has changes")
    options = parser.parse_args()
    options.print = bool(options.only) or options.only_ours
    if options.results is None:
        options.results = options.logs / "kernel.json" if options.print else ROOT / "bench/results/kernel.json"
    return options


def choose(names: list[str] | None) -> list[kernel_plan.Contest]:
    every = kernel_plan.contests()
    if not names:
        return every
    unknown = set(names) - {contest.name for contest in every}
    if unknown:
        sys.exit(f"--only: expected of {', '.join(c.name for c in every)}; got {', '.join(sorted(unknown))}")
    return [contest for contest in every if contest.name in names]


def write_results(path: pathlib.Path, facts: dict[str, str], results: kernel_goals.Results, complete: bool) -> None:
    plain = {
        contest: {name: dataclasses.asdict(m) for name, m in measured.items()} for contest, measured in results.items()
    }
    results_file.write(path, {"complete": complete, "facts": facts, "contests": plain})


def measure(
    options: argparse.Namespace, facts: dict[str, str], contests: list[kernel_plan.Contest]
) -> kernel_goals.Results:
    """Runs the contests and returns their results; adds the peers' versions and the duration to `facts`."""
    options.logs.mkdir(parents=True, exist_ok=True)
    arena = Arena(options.bench, options.logs, options.seconds, options.only_ours, options.patience)
    results: kernel_goals.Results = {}
    begin = time.monotonic()
    try:
        for contest in contests:
            start = time.monotonic()
            results[contest.name] = arena.run(contest, options.rounds or contest.rounds)
            facts.update(arena.versions(), duration=f"{time.monotonic() - begin:.0f} s")
            write_results(options.results, facts, results, complete=contest is contests[-1])
            print(f"{contest.name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    finally:
        arena.close()
    return results


def main() -> None:
    options = arguments()
    if not options.bench.exists():
        sys.exit(f"{options.bench}: not built; build the target attnd_bench first")
    contests = choose(options.only)
    facts = {
        **machine.describe(),
        "date": datetime.date.today().isoformat(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
    if not options.print:
        machine.expect_clean(facts, options.allow_dirty)
    results = measure(options, facts, contests)
    body = kernel_report.section(facts, kernel_goals.goals(), contests, results)
    page.show(options, "kernel table", body)


if __name__ == "__main__":
    main()
