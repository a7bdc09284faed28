"""Measures our attention kernel beside PyTorch, ONNX Runtime and ggml, and writes the kernel's table.

Run it through bench/kernel_table.sh. Needs the packages of requirements.txt (ggml: requirements-ggml.txt) and a built
attnd_bench. The machine should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import sys
import time

import kernel_goals
import kernel_plan
import kernel_report
import machine
import page
from contest import Arena

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/attnd_bench")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench/results/kernel.json")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/performance.md")
    parser.add_argument("--logs", type=pathlib.Path, default=ROOT / "build/peers-logs")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one entrant's block")
    parser.add_argument("--rounds", type=int, default=0, help="blocks of each entrant; 0: what the plan says")
    parser.add_argument("--only", nargs="*", help="names of contests; the page is then only printed, not written")
    parser.add_argument("--only-ours", action="store_true", help="leave the peers out")
    return parser.parse_args()


def choose(names: list[str] | None) -> list[kernel_plan.Contest]:
    every = kernel_plan.contests()
    if not names:
        return every
    unknown = set(names) - {contest.name for contest in every}
    if unknown:
        sys.exit(f"--only: expected of {', '.join(c.name for c in every)}; got {', '.join(sorted(unknown))}")
    return [contest for contest in every if contest.name in names]


def measure(options: argparse.Namespace, contests: list[kernel_plan.Contest]):
    """Runs the contests; returns their results and the peers' versions."""
    options.logs.mkdir(parents=True, exist_ok=True)
    arena = Arena(options.bench, options.logs, options.seconds, options.only_ours)
    results = {}
    try:
        for contest in contests:
            start = time.monotonic()
            results[contest.name] = arena.run(contest, options.rounds or contest.rounds)
            print(f"{contest.name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        return results, arena.versions()
    finally:
        arena.close()


def write_results(path: pathlib.Path, facts: dict[str, str], results: kernel_goals.Results) -> None:
    plain = {
        contest: {name: dataclasses.asdict(m) for name, m in measured.items()} for contest, measured in results.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"facts": facts, "contests": plain}, indent=1) + "\n")


def main() -> None:
    options = arguments()
    if not options.bench.exists():
        sys.exit(f"{options.bench}: not built; build the target attnd_bench first")
    contests = choose(options.only)
    start, load = time.monotonic(), os.getloadavg()[0]
    results, versions = measure(options, contests)
    facts = {
        **machine.describe(),
        **versions,
        "date": datetime.date.today().isoformat(),
        "load before": f"{load:.2f}",
        "duration": f"{time.monotonic() - start:.0f} s",
    }
    body = kernel_report.section(facts, kernel_goals.goals(), contests, results)
    if options.only or options.only_ours:
        print(body)
        return
    write_results(options.results, facts, results)
    page.replace_section(options.page, "kernel table", body)


if __name__ == "__main__":
    main()
