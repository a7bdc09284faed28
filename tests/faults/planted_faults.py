#!/usr/bin/env python3
"""Plants the faults of the lists in this folder, one at a time, and tells which of them the tests notice.

planted_faults.py check SOURCES
    fails if a listed fault's code is gone from the sources, or stands there twice
planted_faults.py plant SOURCES COPY [ROOM...]
    copies the sources, with all faults in them behind a switch (planted.h), for a build
planted_faults.py run COPY BUILD [--room ROOM]... [--fault NAME]... [--tests REGEX] [--without REGEX] [--random N]
                  [--seed N] [--again N] [--jobs N] [--results FILE]
    runs the tests of that build once without a fault, to learn which faults each of them reaches (kept in BUILD), then
    for each fault the tests that reach it, the shortest first, until one fails. Prints a table, and exits with 1 if less
    than 95 % of the faults were noticed, or one only because a test hung or by some of --again N runs.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import planting  # noqa: E402
from planting import Fault, FaultError  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
GOAL = 0.95
SLOWEST = 10  # a test with a fault may take this many times its time without
SHORTEST_LIMIT = int(os.environ.get("ATTND_PLANTED_LIMIT", "60"))  # seconds


# --- check and plant


def by_file(faults: list[Fault]) -> dict[str, list[Fault]]:
    files: dict[str, list[Fault]] = {}
    for fault in faults:
        files.setdefault(fault.file, []).append(fault)
    return files


def planted_files(sources: pathlib.Path, faults: list[Fault], header: str) -> dict[str, str]:
    """The text of each file that has faults. Raises FaultError with all that is wrong, a line each."""
    texts, errors = {}, []
    for file, here in by_file(faults).items():
        try:
            texts[file] = planting.plant(here, (sources / file).read_text(encoding="utf-8"), header)
        except (FaultError, OSError) as error:
            errors.append(str(error))
    if errors:
        raise FaultError("\n".join(errors))
    return texts


def check(sources: pathlib.Path) -> None:
    faults = planting.read_lists(sources / "tests/faults")
    planted_files(sources, faults, "planted.h")
    rooms = {fault.room for fault in faults}
    print(f"{len(faults)} faults of {len(rooms)} rooms, each where its list says")


def write_if_new(path: pathlib.Path, content: bytes, mode: int) -> None:
    """Leaves a file alone that has the content, so that a build compiles only what has changed."""
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    path.chmod(mode)


def plant(sources: pathlib.Path, copy: pathlib.Path, rooms: list[str]) -> None:
    faults = planting.read_lists(sources / "tests/faults")
    chosen = [fault for fault in faults if not rooms or fault.room in rooms]
    texts = planted_files(sources, chosen, str(copy / "tests/faults/planted.h"))
    listed = subprocess.run(["git", "-C", sources, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            check=True, stdout=subprocess.PIPE).stdout.decode().split("\0")
    kept = set()
    for name in filter(None, listed):
        path = sources / name
        if path.is_symlink() or not path.is_file():
            continue
        text = texts.get(name)
        write_if_new(copy / name, path.read_bytes() if text is None else text.encode(), path.stat().st_mode & 0o777)
        kept.add(copy / name)
    python = copy / "client/python/attnd_planted.py"
    write_if_new(python, (HERE / "attnd_planted.py").read_bytes(), 0o644)
    kept.add(python)
    for path in copy.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    print(f"{len(chosen)} faults in {len(texts)} files")


# --- run


@dataclass
class Run:
    failed: bool
    hung: bool
    seconds: float
    case: str


@dataclass
class Outcome:
    fault: Fault
    state: str  # noticed, hung, missed, not reached
    test: str
    seconds: float
    tried: int  # tests that ran
    again: str  # "5 of 5": how often the test failed, run again


def run_test(build: pathlib.Path, name: str, limit: float, environment: dict[str, str]) -> Run:
    started = time.monotonic()
    done = subprocess.run(
        ["ctest", "--test-dir", build, "-R", f"^{re.escape(name)}$", "--timeout", str(int(limit)), "--output-on-failure"],
        env={**os.environ, "GTEST_FAIL_FAST": "1", "PYTEST_ADDOPTS": "-x", **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    seconds = time.monotonic() - started
    text = done.stdout.decode(errors="replace")
    if done.returncode == 0:
        return Run(False, False, seconds, "")
    hung = "***Timeout" in text or HANG.search(text) is not None
    case = re.search(r"^\[  FAILED  \] (\S+)|^FAILED (\S+)", text, re.M)
    return Run(True, hung, seconds, next(filter(None, case.groups())).rstrip(",") if case else "")


HANG = re.compile(r"a test hung|still runs after")  # what the watchdog of the tests says


def learn(build: pathlib.Path, tests: dict[str, float], jobs: int, anew: bool) -> dict[str, dict]:
    """Per test: whether it passes without a fault, its seconds, and the numbers of the faults it reaches. Kept in a file
    for each test, until the test's program is built again; `tests` has the times of their programs."""

    def one(name: str) -> tuple[str, dict]:
        file = build / "reached" / f"{name}.json"
        if file.exists() and not anew:
            known = json.loads(file.read_text(encoding="utf-8"))
            if known["built"] == tests[name]:
                return name, known
        with tempfile.TemporaryDirectory() as folder:
            run = run_test(build, name, 600, {"ATTND_PLANTED_REACHED": folder})
            reached = sorted(int(path) for path in os.listdir(folder))
        print(f"  {name}: {'failed' if run.failed else 'passed'}, {run.seconds:.1f} s, reaches {len(reached)}", flush=True)
        known = {"built": tests[name], "passed": not run.failed, "seconds": run.seconds, "reached": reached}
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(known), encoding="utf-8")
        return name, known

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return dict(pool.map(one, tests))


def try_fault(build: pathlib.Path, fault: Fault, tests: list[tuple[float, str]], again: int) -> Outcome:
    environment = {"ATTND_PLANTED_FAULT": str(fault.number)}
    started = time.monotonic()
    hung = ""
    for tried, (seconds, name) in enumerate(tests, 1):
        limit = max(SHORTEST_LIMIT, SLOWEST * seconds)
        run = run_test(build, name, limit, environment)
        if not run.failed:
            continue
        test = f"{name} {run.case}".strip()
        if run.hung:
            hung = hung or test
            continue
        took = time.monotonic() - started
        failures = sum(run_test(build, name, limit, environment).failed for _ in range(again))
        return Outcome(fault, "noticed", test, took, tried, f"{failures} of {again}" if again else "")
    state = "hung" if hung else "missed" if tests else "not reached"
    return Outcome(fault, state, hung, time.monotonic() - started, len(tests), "")


def built(command: list[str]) -> float:
    """When the newest file that a test's command names was written."""
    return max((os.stat(word).st_mtime for word in command if os.path.isfile(word)), default=0)


def cpu_features() -> set[str]:
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return set(re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.M).group(1).split())


def run(options: argparse.Namespace) -> int:
    build = options.build
    faults = planting.read_lists(options.copy / "tests/faults")
    names = {fault.name for fault in faults} | {fault.room for fault in faults}
    if unknown := set(options.fault + options.room) - names:
        raise FaultError(f"no such fault or room: {', '.join(sorted(unknown))}")
    chosen = [f for f in faults if (not options.room and not options.fault) or f.room in options.room or f.name in options.fault]
    lacking = [fault for fault in chosen if fault.needs and fault.needs not in cpu_features()]
    chosen = [fault for fault in chosen if fault not in lacking]
    if options.random:
        seed = options.seed if options.seed is not None else random.randrange(1_000_000)
        print(f"{options.random} faults at random, --seed {seed}")
        chosen = random.Random(seed).sample(chosen, min(options.random, len(chosen)))

    shown = json.loads(subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], check=True,
                                      stdout=subprocess.PIPE).stdout)
    tests = {test["name"]: built(test.get("command", [])) for test in shown["tests"]
             if re.search(options.tests, test["name"])
             and not (options.without and re.search(options.without, test["name"]))}
    known = learn(build, tests, options.jobs, options.learn)
    broken = [name for name in tests if not known[name]["passed"]]
    if broken:
        print(f"left out, since they fail without a fault: {', '.join(broken)}")

    def reaching(fault: Fault) -> list[tuple[float, str]]:
        return sorted((known[name]["seconds"], name) for name in tests
                      if known[name]["passed"] and fault.number in known[name]["reached"])

    outcomes = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        waiting = [pool.submit(try_fault, build, fault, reaching(fault), options.again) for fault in chosen]
        for done in concurrent.futures.as_completed(waiting):
            outcome = done.result()
            outcomes.append(outcome)
            print(f"{outcome.state:11} {outcome.fault.name}: {outcome.test} {outcome.seconds:.1f} s, "
                  f"{outcome.tried} tests {outcome.again}", flush=True)
    text = table(outcomes, lacking)
    print(f"\n{text}")
    if options.results:
        options.results.write_text(text + "\n", encoding="utf-8")
    return verdict(outcomes)


def lucky(outcome: Outcome) -> bool:
    return bool(outcome.again) and len(set(outcome.again.split(" of "))) > 1


def verdict(outcomes: list[Outcome]) -> int:
    noticed = sum(outcome.state == "noticed" for outcome in outcomes)
    hung = any(outcome.state == "hung" or lucky(outcome) for outcome in outcomes)
    return 1 if hung or noticed < GOAL * len(outcomes) else 0


def table(outcomes: list[Outcome], lacking: list[Fault]) -> str:
    lines = ["| room | noticed | of | share |", "|---|---:|---:|---:|"]
    rooms = sorted({outcome.fault.room for outcome in outcomes})
    for room in [*rooms, "all"]:
        here = [outcome for outcome in outcomes if room in ("all", outcome.fault.room)]
        noticed = sum(outcome.state == "noticed" for outcome in here)
        lines.append(f"| {room} | {noticed} | {len(here)} | {noticed / max(1, len(here)):.0%} |")
    lines += ["", "| fault | kind | | by which test | seconds | tests run | again |", "|---|---|---|---|---:|---:|---|"]
    for outcome in sorted(outcomes, key=lambda o: o.fault.number):
        state = "by luck" if lucky(outcome) else outcome.state
        lines.append(f"| {outcome.fault.name} | {outcome.fault.kind} | {state} | {outcome.test} | {outcome.seconds:.1f} | "
                     f"{outcome.tried} | {outcome.again} |")
    lines += [f"| {fault.name} | {fault.kind} | not tried: this CPU has no {fault.needs} | | | | |" for fault in lacking]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("check")
    one.add_argument("sources", type=pathlib.Path)
    one = commands.add_parser("plant")
    one.add_argument("sources", type=pathlib.Path)
    one.add_argument("copy", type=pathlib.Path)
    one.add_argument("rooms", nargs="*")
    one = commands.add_parser("run")
    one.add_argument("copy", type=pathlib.Path)
    one.add_argument("build", type=pathlib.Path)
    one.add_argument("--room", action="append", default=[])
    one.add_argument("--fault", action="append", default=[])
    one.add_argument("--tests", default="", help="only tests whose names match")
    one.add_argument("--without", default="", help="no tests whose names match")
    one.add_argument("--random", type=int, default=0, metavar="N", help="N of the faults, taken at random")
    one.add_argument("--seed", type=int)
    one.add_argument("--again", type=int, default=0, metavar="N", help="run the test that noticed a fault N times more")
    one.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    one.add_argument("--learn", action="store_true", help="run the tests without a fault again")
    one.add_argument("--results", type=pathlib.Path, help="write the table to this file, too")
    options = parser.parse_args()
    try:
        if options.command == "check":
            check(options.sources)
        elif options.command == "plant":
            plant(options.sources.resolve(), options.copy.resolve(), options.rooms)
        else:
            return run(options)
    except FaultError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
