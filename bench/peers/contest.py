"""Runs a contest: every entrant in turn, block by block, so that all see the same machine."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import statistics
from collections.abc import Callable

import attnd_kernel
import json_worker
from json_worker import JsonWorker, PeerError
from kernel_plan import Contest, Entrant


@dataclasses.dataclass
class Round:
    """One block of an entrant: what it measured between two blocks of the others."""

    best_ms: float
    median_ms: float
    read_bandwidth: float = 0.0  # ours: the median that the block measured between its repetitions, GB/s


@dataclasses.dataclass
class Measurement:
    """The times of one entrant, or why there are none."""

    best_ms: float = 0.0
    median_ms: float = 0.0
    reps: int = 0
    extras: dict[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""
    error: str = ""
    huge_fraction: float = 0.0  # how much of K and V lies on huge pages
    rounds: list[Round] = dataclasses.field(default_factory=list)


class _Ours:
    def __init__(self, entrant: Entrant, binary: pathlib.Path, cpus: list[int], seconds: float):
        self._run = functools.partial(
            attnd_kernel.run,
            binary,
            entrant.case,
            cpus=cpus,
            kernel=entrant.kernel,
            bias=entrant.bias,
            true_keys=entrant.true_keys,
            beams=entrant.beams,
            page_rows=entrant.page_rows,
        )
        self._reps = attnd_kernel.reps_for(seconds, self._run(reps=1)["ms_min"])
        self._lines: list[dict] = []

    def block(self) -> None:
        self._lines.append(self._run(reps=self._reps))

    def summary(self) -> Measurement:
        rounds = [Round(line["ms_min"], line["ms_median"], line["read_bandwidth_median"]) for line in self._lines]
        return Measurement(
            best_ms=min(one.best_ms for one in rounds),
            median_ms=statistics.median(one.median_ms for one in rounds),
            reps=self._reps * len(rounds),
            extras=self._extras(),
            note=self._lines[0]["kernel"],
            huge_fraction=min(line["huge_fraction"] for line in self._lines),
            rounds=rounds,
        )

    def _extras(self) -> dict[str, float]:
        """Speeds. The machine's are the best of all blocks: one that was disturbed must not flatter the kernel."""

        def all_of(key: str) -> list[float]:
            return [line[key] for line in self._lines]

        peak = max(all_of("peak_gflops"))
        by_median = [line["gflops"] * line["ms_min"] / line["ms_median"] for line in self._lines]
        return {
            "fraction_of_peak": max(all_of("gflops")) / peak,
            "median_fraction_of_peak": statistics.median(by_median) / peak,
            "peak_gflops": peak,
            "read_bandwidth": max(all_of("read_bandwidth")),
            "peak_rss_mb": min(all_of("peak_rss_mb")),
        }

    def drop(self) -> None:
        pass


class _Peer:
    def __init__(self, entrant: Entrant, worker: Callable[[], JsonWorker], cpus: list[int], seconds: float):
        self._entrant = entrant
        self._find_worker = worker
        self._cpus = cpus
        self._seconds = seconds
        self._times: list[list[float]] = []
        self._prepare()

    def _prepare(self) -> None:
        self._worker = self._find_worker()
        case = dataclasses.asdict(self._entrant.case)
        self._prepared = self._worker.ask(op="prepare", path=self._entrant.path, case=case)

    def block(self) -> None:
        if self._worker.failed:  # Another path ended the worker that they shared; this one goes on in a new worker.
            self._prepare()
        timed = self._worker.ask(op="time", id=self._prepared["id"], seconds=self._seconds, cpus=self._cpus)
        self._times.append(timed["ms"])

    def summary(self) -> Measurement:
        times = [time for block in self._times for time in block]
        return Measurement(
            best_ms=min(times),
            median_ms=statistics.median(times),
            reps=len(times),
            extras={"max_error": self._prepared["max_error"]},
            note=self._prepared["note"],
            huge_fraction=self._prepared["huge_fraction"],
            rounds=[Round(min(block), statistics.median(block)) for block in self._times],
        )

    def drop(self) -> None:
        if not self._worker.failed:
            self._worker.ask(op="drop", id=self._prepared["id"])


class Arena:
    """Starts workers when they are first needed and runs contests with them."""

    def __init__(
        self,
        binary: pathlib.Path,
        log_folder: pathlib.Path,
        seconds: float,
        only_ours: bool = False,
        patience: float = json_worker.PATIENCE_SECONDS,
        script: pathlib.Path = json_worker.SCRIPT,
    ):
        self._binary = binary
        self._logs = log_folder
        self._seconds = seconds
        self._only_ours = only_ours
        self._patience = patience
        self._script = script
        self._cpus = sorted(os.sched_getaffinity(0))
        self._workers: dict[str, JsonWorker] = {}

    def _worker(self, library: str) -> JsonWorker:
        """The library's worker; a new one if it has none that works."""
        log = self._logs / f"{library}.log"
        worker = self._workers.get(library)
        if worker is None:
            log.unlink(missing_ok=True)
        elif not worker.failed:
            return worker
        else:
            worker.close()
        self._workers[library] = JsonWorker(library, log, self._patience, self._script)
        return self._workers[library]

    def _enter(self, entrant: Entrant) -> _Ours | _Peer:
        if self._only_ours and entrant.library != "attnd":
            raise PeerError("left out by --only-ours")
        if entrant.case.threads > len(self._cpus):
            raise PeerError(f"needs {entrant.case.threads} CPUs")
        cpus = self._cpus[-entrant.case.threads :]
        if entrant.library == "attnd":
            return _Ours(entrant, self._binary, cpus, self._seconds)
        return _Peer(entrant, functools.partial(self._worker, entrant.library), cpus, self._seconds)

    def run(self, contest: Contest, rounds: int) -> dict[str, Measurement]:
        """Measures every entrant; one that fails keeps its reason and the others go on."""
        runners = {}
        results = {}
        for entrant in contest.entrants:
            try:
                runners[entrant.name] = self._enter(entrant)
            except PeerError as error:
                results[entrant.name] = Measurement(error=str(error))
        for _ in range(rounds):
            for name in list(runners):
                try:
                    runners[name].block()
                except PeerError as error:
                    results[name] = Measurement(error=str(error))
                    self._drop(runners.pop(name))
        for name, runner in runners.items():
            results[name] = runner.summary()
            self._drop(runner)
        return {entrant.name: results[entrant.name] for entrant in contest.entrants}

    def _drop(self, runner: _Ours | _Peer) -> None:
        try:
            runner.drop()
        except PeerError:
            pass  # The worker has ended, and with it what was to be dropped.

    def versions(self) -> dict[str, str]:
        """Versions of what the workers that ran are made of."""
        found: dict[str, str] = {}
        for worker in self._workers.values():
            try:
                found.update(worker.ask(op="versions")["versions"])
            except PeerError:
                continue
        return found

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()
