"""Tests of contests and their reports. If a peer fails, only its own rows lack times."""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import tempfile
import unittest

import kernel_goals
import kernel_report
import kernel_table
import results
from case import Case
from contest import Arena, Measurement, Round
from json_worker import JsonWorker, PeerError
from kernel_plan import Contest, Entrant

FAKE = pathlib.Path(__file__).with_name("fake_worker.py")
CASE = Case(1, 1, 8, 8, 4)

# Prints one line of JSON, as `attnd_bench kernel` does.
FAKE_BENCH = """#!/bin/sh
echo '{"kernel": "fake", "ms_min": 100, "ms_median": 120, "gflops": 1, "peak_gflops": 2, "read_bandwidth": 10,' \
  '"read_bandwidth_median": 8, "pages": "huge", "huge_fraction": 1.0, "peak_rss_mb": 5}'
"""


def contest(*entrants: tuple[str, str]) -> Contest:
    """A contest between attnd and the entrants, each given as (library, path)."""
    peers = (Entrant(f"{path} ({library})", library, CASE, path=path) for library, path in entrants)
    return Contest("test", "a test", (Entrant("attnd", "attnd", CASE), *peers))


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.bench = self.folder / "attnd_bench"
        self.bench.write_text(FAKE_BENCH)
        self.bench.chmod(0o755)

    def arena(self, patience: float = 30.0) -> Arena:
        arena = Arena(self.bench, self.folder, seconds=0.1, patience=patience, script=FAKE)
        self.addCleanup(arena.close)
        return arena


class ArenaTest(WithFolder):
    def check(self, library: str, path: str, reason: str, patience: float = 30.0) -> None:
        """Checks that the path's row gives `reason` for its missing time. Rows that can still run must have times."""
        name = f"{path} ({library})"
        entrants = (("good", "first"), (library, "before"), (library, path), (library, "after"), ("other", "last"))
        measured = self.arena(patience).run(contest(*entrants), rounds=3)
        self.assertEqual(len(measured), 6)
        self.assertRegex(measured[name].error, reason)
        self.assertIn(f"not measured ({measured[name].error})".replace("|", "\\|"), kernel_report.timing_table(measured))
        for other, measurement in measured.items():
            if other != name and library not in ("no_import", "dies_at_once"):
                self.assertEqual(measurement.error, "", other)
            if library not in other:
                self.assertEqual(len(measurement.rounds), 3, other)

    def test_worker_that_cannot_import(self):
        self.check("no_import", "any", "No module named 'nothing'")

    def test_worker_that_ends_at_once(self):
        self.check("dies_at_once", "any", "the dies_at_once worker ended with status 5; see dies_at_once.log")

    def test_path_that_fails(self):
        self.check("fake", "fails_in_prepare", "output differs")

    def test_path_that_ends_its_worker_in_prepare(self):
        self.check("fake", "dies_in_prepare", "ended with status 3")

    def test_path_that_ends_its_worker_in_a_round(self):
        self.check("fake", "dies_in_time", "ended with status 4")

    def test_path_that_hangs(self):
        self.check("fake", "hangs", "did not answer for 1 s", patience=1.0)

    def test_path_that_answers_nonsense(self):
        self.check("fake", "talks_nonsense", "the fake worker ended by SIGKILL")

    def test_worker_that_ends_between_rounds(self):
        measured = self.arena().run(contest(("fake", "dies_between_rounds"), ("other", "good")), rounds=3)
        self.assertRegex(measured["dies_between_rounds (fake)"].error, "ended with status 6")
        self.assertEqual(len(measured["good (other)"].rounds), 3)
        self.assertEqual(measured["attnd"].error, "")

    def test_our_program_that_fails(self):
        self.bench.write_text("#!/bin/sh\necho no such kernel >&2\nexit 2\n")
        measured = self.arena().run(contest(("good", "path")), rounds=2)
        self.assertEqual(measured["attnd"].error, "attnd_bench: no such kernel")
        self.assertEqual(measured["path (good)"].best_ms, 1.0)

    def test_times_by_round(self):
        measured = self.arena().run(contest(("good", "path")), rounds=2)
        self.assertEqual(measured["attnd"].rounds, [Round(100, 120, 8)] * 2)
        self.assertEqual(measured["path (good)"].rounds, [Round(1.0, 2.0)] * 2)

    def test_unequal_pages_are_seen(self):
        table = kernel_report.timing_table(self.arena().run(contest(("good", "path")), rounds=1))
        self.assertRegex(table, r"\*\*Unequal pages\*\*.*attnd huge 100%, path \(good\) huge 25%")

    def test_closing_what_has_ended(self):
        worker = JsonWorker("dies_at_once", self.folder / "log", script=FAKE)
        with self.assertRaises(PeerError):
            worker.ask(op="versions")
        worker.close()


class ResultsTest(WithFolder):
    def test_file_grows_with_each_contest(self):
        path = self.folder / "results.json"
        seen = []

        class Watching(Arena):
            def run(self, *arguments) -> dict[str, Measurement]:
                seen.append(json.loads(path.read_text()) if path.exists() else None)
                if len(seen) == 3:
                    raise KeyboardInterrupt
                return super().run(*arguments)

        options = argparse.Namespace(
            logs=self.folder, bench=self.bench, seconds=0.1, only_ours=True, patience=30, rounds=1, results=path
        )
        contests = [Contest(name, name, (Entrant("attnd", "attnd", CASE),)) for name in "abc"]
        original, kernel_table.Arena = kernel_table.Arena, Watching
        self.addCleanup(setattr, kernel_table, "Arena", original)
        with self.assertRaises(KeyboardInterrupt):
            kernel_table.measure(options, {"date": "today"}, contests)
        self.assertEqual([sorted(one["contests"]) if one else None for one in seen], [None, ["a"], ["a", "b"]])
        left = json.loads(path.read_text())
        self.assertEqual((left["complete"], left["facts"]["date"], sorted(left["contests"])), (False, "today", ["a", "b"]))
        self.assertEqual([file.name for file in self.folder.glob(".results*")], [])

        seen.extend([None] * 3)
        kernel_table.measure(options, {}, contests)
        self.assertTrue(json.loads(path.read_text())["complete"])

    def test_write_replaces_at_once(self):
        path = self.folder / "deep" / "results.json"
        results.write(path, {"a": 1})
        results.write(path, {"b": 2})
        self.assertEqual(json.loads(path.read_text()), {"b": 2})
        self.assertEqual([file.name for file in path.parent.iterdir()], ["results.json"])


class GoalsTest(unittest.TestCase):
    def rows(self, decode: dict[str, Measurement]) -> dict[str, str]:
        table = kernel_report.goal_table(kernel_goals.goals(), {"decode": decode})
        return {cells[1].strip(): "|".join(cells[2:]) for row in table.splitlines() if (cells := row.split("|"))}

    def test_every_goal_has_a_row_without_measurements(self):
        rows = kernel_report.goal_table(kernel_goals.goals(), {}).splitlines()[2:]
        self.assertEqual(len(rows), len(kernel_goals.goals()))
        self.assertTrue(all("not measured (not run)" in row for row in rows))

    def test_decode_is_judged_round_by_round(self):
        # K and V have 0.537 GB. In the second round other load halves the bandwidth; no fraction changes.
        speed = 2 * 32 * 8 * 4096 * 64 * 4 / 1e9 / 0.1
        ours = Measurement(90, 100, rounds=[Round(90, 100, speed), Round(180, 200, speed / 2), Round(90, 100, speed)])
        ours.extras["read_bandwidth"] = speed / 0.9
        rival = Measurement(1, 1, rounds=[Round(1, 99), Round(1, 198), Round(1, 150)])
        rows = self.rows({"attnd": ours, "ort_attention (onnx)": rival})
        self.assertRegex(rows["Decode: fraction of the read bandwidth"], r"100\.0% \| 100\.0% \| reached")
        self.assertRegex(rows["Decode against ONNX Runtime, median of interleaved ratios"], r"– \| 0\.99× \| reached")

    def test_a_missing_peer_is_named(self):
        ours = Measurement(1, 1, rounds=[Round(1, 1, 1)], extras={"read_bandwidth": 1.0})
        rows = self.rows({"attnd": ours, "ort_attention (onnx)": Measurement(error="No module named 'onnx'")})
        self.assertTrue(re.search(r"not measured \(ort_attention \(onnx\): No module", "".join(rows.values())))


if __name__ == "__main__":
    unittest.main()
