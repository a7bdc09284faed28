"""What the wire's benchmark cannot measure costs its own rows and nothing else."""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import tempfile
import unittest
from collections.abc import Iterator
from unittest import mock

import machine
import servers
import wire_goals
import wire_report
import wire_table
from results import NotMeasured

# As attnd_bench wire, but pieces fail.
FAKE_BENCH = """#!/bin/sh
for flag in "$@"; do
  if [ "$flag" = --mode=stream ]; then echo "pieces | failed" >&2; exit 1; fi
done
echo '{"shape": "s", "dtype": "fp32", "p50_ms": 2, "min_ms": 1, "p99_ms": 3, "socket_p50_ms": 1.8, "socket_min_ms": 1,' \
  '"huge_fraction": 1, "socket_huge_fraction": 1, "kernel_p50_ms": 1.9, "kernel_min_ms": 1, "to_kernel_p50": 1.01,' \
  '"to_kernel_min": 1, "server_cpu_ms": 1, "client_cpu_ms": 1, "kernel_cpu_ms": 1, "empty_call_p50_ms": 1.9,' \
  '"to_empty_call_p50": 1.05, "to_grpc_p50": 0.3, "to_grpc_min": 0.3, "disturbed": false}'
"""
# As attnd_server_race, but it cannot race two servers.
FAKE_RACE = """#!/bin/sh
case "$*" in *python*) echo "python differs from attnd" >&2; exit 1 ;; esac
echo '{"p50_ms": 2, "min_ms": 1, "compute_ms": 1}'
"""


def missing_server(*_: object) -> contextlib.AbstractContextManager[str]:
    raise NotMeasured("python_server.py did not start: No module named 'torch'")


@contextlib.contextmanager
def server(name: str) -> Iterator[str]:
    yield name


class WireTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = pathlib.Path(folder.name)
        self.results = self.build / "wire.json"
        options = argparse.Namespace(build=self.build, results=self.results, seconds=0.1, rounds=2, patience=30)
        self.run_ = wire_table.Run(options, {"date": "today"}, server_cpu=1, client_cpu=0)
        no_flight = mock.patch.object(self.run_, "flight", side_effect=NotMeasured("No module named 'pyarrow'"))
        no_flight.start()
        self.addCleanup(no_flight.stop)

    def program(self, path: str, text: str) -> None:
        (self.build / path).parent.mkdir(parents=True, exist_ok=True)
        (self.build / path).write_text(text)
        (self.build / path).chmod(0o755)

    def measure(self) -> list[str]:
        for measure in (wire_table.echo, wire_table.calls, wire_table.race, wire_table.memory):
            measure(self.run_)
            self.assertFalse(json.loads(self.results.read_text())["complete"])
        self.run_.write(complete=True)
        wire_report.section({}, self.run_.results)
        return wire_goals.table(self.run_.results).splitlines()[2:]

    def test_without_anything_every_row_says_so(self):
        with mock.patch.object(servers, "python_server", missing_server):
            rows = self.measure()
        self.assertGreater(len(rows), 15)
        for row in rows:
            self.assertIn("not measured (", row)
        self.assertTrue(json.loads(self.results.read_text())["complete"])

    def test_one_that_fails_does_not_lose_the_others(self):
        self.program("bench/attnd_bench", FAKE_BENCH)
        self.program("bench/attnd_server_race", FAKE_RACE)
        started = {"attnd": server("attnd"), "python_server": server("python")}
        with (
            mock.patch.object(servers, "attnd", lambda *_: started["attnd"]),
            mock.patch.object(servers, "python_server", lambda *_: started["python_server"]),
        ):
            rows = self.measure()
        for row in rows:
            unmeasured = any(word in row for word in ("Flight", "pieces", "Python", "Memory"))
            self.assertEqual("not measured (" in row, unmeasured, row)
        results = json.loads(self.results.read_text())
        self.assertEqual(results["echo"]["4"]["tcp"]["attnd, pieces"], {"error": "attnd_bench: pieces | failed"})
        self.assertEqual(results["echo"]["4"]["tcp"]["plain socket"]["p50_ms"], 1.8)
        self.assertEqual(results["race"]["512"]["attnd"]["p50_ms"], 2)
        self.assertIn("python differs from attnd", results["race"]["512"]["python"]["error"])

    def test_a_program_that_hangs(self):
        self.program("bench/attnd_bench", "#!/bin/sh\nexec sleep 60\n")
        self.run_.options.patience = 0.2
        with self.assertRaisesRegex(NotMeasured, "attnd_bench did not end within 1 s"):
            self.run_.wire(1, [])


class CommitTest(unittest.TestCase):
    def test_changes_are_refused_unless_allowed(self):
        machine.expect_clean({"attnd commit": "0123456789"}, allowed=False)
        machine.expect_clean({"attnd commit": "0123456789-dirty"}, allowed=True)
        with self.assertRaisesRegex(SystemExit, "0123456789-dirty.*--allow-dirty"):
            machine.expect_clean({"attnd commit": "0123456789-dirty"}, allowed=False)

    def test_what_benchmarks_write_does_not_count(self):
        # `git status` is asked about everything but that.
        with mock.patch.object(machine, "_git", side_effect=["", "0123456789"]) as git:
            self.assertEqual(machine.commit(), "0123456789")
        self.assertIn(":(exclude)bench/results", git.call_args_list[0].args)
        with mock.patch.object(machine, "_git", side_effect=[" M src/a.cc", "0123456789"]):
            self.assertEqual(machine.commit(), "0123456789-dirty")


if __name__ == "__main__":
    unittest.main()
