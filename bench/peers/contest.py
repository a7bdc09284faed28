"""Runs a contest: every entrant in turn, block by block, so that all see the same machine."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import statistics

import attnd_kernel
from json_worker import JsonWorker, PeerError
from kernel_plan import Contest, Entrant

@dataclasses.dataclass
class Measurement:
    """The times of one entrant, or why there are none."""

    best_ms: float = 0.0
    median_ms: float = 0.0
    reps: int = 0
    extras: dict[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""
    error: str = ""


class _Ours:
    def __init__(self, entrant: Entrant, binary: pathlib.Path, cpus: list[int], seconds: float):
        self._run = functools.partial(
            attnd_kernel.run, binary, entrant.case, cpus=cpus, kernel=entrant.kernel, bias=entrant.bias
        )
        self._reps = attnd_kernel.reps_for(seconds, self._run(reps=1)["ms_min"])
        self._lines: list[dict] = []

    def block(self) -> None:
        self._lines.append(self._run(reps=self._reps))

    def summary(self) -> Measurement:
        best = min(line["ms_min"] for line in self._lines)
        median = statistics.median(line["ms_median"] for line in self._lines)
        return Measurement(best, median, self._reps * len(self._lines), self._extras(), note=self._lines[0]["kernel"])

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
    def __init__(self, entrant: Entrant, worker: JsonWorker, cpus: list[int], seconds: float):
        self._worker = worker
        self._cpus = cpus
        self._seconds = seconds
        prepared = worker.ask(op="prepare", path=entrant.path, case=dataclasses.asdict(entrant.case))
        self._id = prepared["id"]
        self._error = prepared["max_error"]
        self._note = prepared["note"]
        self._times: list[float] = []

    def block(self) -> None:
        self._times += self._worker.ask(op="time", id=self._id, seconds=self._seconds, cpus=self._cpus)["ms"]

    def summary(self) -> Measurement:
        extras = {"max_error": self._error}
        best, median = min(self._times), statistics.median(self._times)
        return Measurement(best, median, len(self._times), extras, note=self._note)

    def drop(self) -> None:
        self._worker.ask(op="drop", id=self._id)


class Arena:
    """Starts workers when they are first needed and runs contests with them."""

    def __init__(self, binary: pathlib.Path, log_folder: pathlib.Path, seconds: float, only_ours: bool = False):
        self._binary = binary
        self._logs = log_folder
        self._seconds = seconds
        self._only_ours = only_ours
        self._cpus = sorted(os.sched_getaffinity(0))
        self._workers: dict[str, JsonWorker] = {}

    def _worker(self, library: str) -> JsonWorker:
        if library not in self._workers:
            self._workers[library] = JsonWorker(library, self._logs / f"{library}.log")
        return self._workers[library]

    def _enter(self, entrant: Entrant):
        if entrant.case.threads > len(self._cpus):
            raise PeerError(f"needs {entrant.case.threads} CPUs")
        cpus = self._cpus[-entrant.case.threads :]
        if entrant.library == "attnd":
            return _Ours(entrant, self._binary, cpus, self._seconds)
        return _Peer(entrant, self._worker(entrant.library), cpus, self._seconds)

    def run(self, contest: Contest, rounds: int) -> dict[str, Measurement]:
        """Measures every entrant; one that fails keeps its reason and the others go on."""
        runners = {}
        results = {}
        for entrant in contest.entrants:
            if self._only_ours and entrant.library != "attnd":
                continue
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
                    del runners[name]
        for name, runner in runners.items():
            results[name] = runner.summary()
            runner.drop()
        return {entrant.name: results[entrant.name] for entrant in contest.entrants if entrant.name in results}

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
