#!/usr/bin/env python3
"""planted_faults.py over a small program whose tests are known: one fault of each outcome, in C++ and in Python."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
TOOL = [sys.executable, "-B", HERE / "planted_faults.py"]

CODE = """
#include <cstdio>
#include <cstring>
#include <unistd.h>

int Clamp(int value) {
  if (value < 0) return 0;
  if (value > 10) value = 10;
  return value;
}

int Unused(int value) { return value + 1; }

int main(int argc, char** argv) {
  if (argc > 9) return Unused(argc);
  int failed = 0;
  if (Clamp(-1) != 0) { std::printf("[  FAILED  ] Clamp.Below\\n"); failed = 1; }
  if (Clamp(4) != 4) { std::printf("[  FAILED  ] Clamp.Within\\n"); failed = 1; }
  while (Clamp(12) != 10 && Clamp(12) != 12) sleep(1);
  return failed;
}
"""

PYTHON = """
def halve(values):
    total = 0
    for value in values:
        total += value
    return total // 2


assert halve([4, 2]) == 3
"""

FAULTS = """
[[fault]]
name = "below"
kind = "limit"
file = "clamp.cc"
old = 'value < 0'
new = 'value < -5'
why = "noticed: Clamp(-1) is -1"

[[fault]]
name = "above"
kind = "limit"
file = "clamp.cc"
old = 'if (value > 10) value = 10;'
new = ''
why = "missed: the program takes 12, too"

[[fault]]
name = "hangs"
kind = "limit"
file = "clamp.cc"
old = 'value = 10;'
new = 'value = 11;'
why = "noticed by nothing but a wait without an end; stands within the fault above"

[[fault]]
name = "unreached"
kind = "value"
file = "clamp.cc"
old = 'value + 1'
new = 'value + 2'
why = "no test gets there"

[[fault]]
name = "elsewhere"
kind = "value"
file = "clamp.cc"
old = 'value + 1'
new = 'value + 3'
why = "two faults of one expression"
needs = "no-such-feature"

[[fault]]
name = "sum"
kind = "value"
file = "client/python/halve.py"
old = '        total += value'
new = '''        total = value
        total = total + 1'''
why = "noticed; statements"

[[fault]]
name = "half"
kind = "value"
file = "client/python/halve.py"
old = 'total // 2'
new = 'total // 3'
why = "noticed; an expression"
"""

CMAKE = """
cmake_minimum_required(VERSION 3.20)
project(sample CXX)
enable_testing()
add_executable(clamp clamp.cc)
add_test(NAME clamp_test COMMAND clamp)
add_test(NAME halve_test COMMAND ${PYTHON} -B ${PROJECT_SOURCE_DIR}/client/python/halve.py)
"""


class PlantingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.sources = self.folder / "sources"
        for name, text in {"clamp.cc": CODE, "client/python/halve.py": PYTHON, "CMakeLists.txt": CMAKE,
                           "tests/faults/sample.toml": FAULTS}.items():
            self.write(name, text)
        for name in ("planted.h", "attnd_planted.py"):
            self.write(f"tests/faults/{name}", (HERE / name).read_text())
        subprocess.run(["git", "init", "-q", self.sources], check=True)

    def write(self, name: str, text: str) -> None:
        path = self.sources / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def tool(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*TOOL, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, env={**os.environ, "ATTND_PLANTED_LIMIT": "5"})

    def test_each_outcome(self) -> None:
        copy, build = self.folder / "copy", self.folder / "build"
        self.assertEqual("7 faults in 2 files\n", self.tool("plant", self.sources, copy).stdout)
        for command in (["cmake", "-S", copy, "-B", build, f"-DPYTHON={sys.executable}"], ["cmake", "--build", build]):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            self.assertEqual(0, done.returncode, done.stdout)
        done = self.tool("run", copy, build, "--again", "2")
        rows = {line.split(" | ")[0][2:]: line.split(" | ")[1:] for line in done.stdout.splitlines() if line.startswith("| ")}
        self.assertEqual(["limit", "noticed", "clamp_test Clamp.Below"], rows["below"][:3], done.stdout)
        self.assertEqual("2 of 2 |", rows["below"][-1])
        self.assertEqual(["limit", "missed"], rows["above"][:2])
        self.assertEqual(["limit", "hung", "clamp_test"], rows["hangs"][:3])
        self.assertEqual(["value", "not reached"], rows["unreached"][:2])
        self.assertEqual("not tried: this CPU has no no-such-feature", rows["elsewhere"][1])
        self.assertEqual(["value", "noticed", "halve_test"], rows["sum"][:3])
        self.assertEqual(["value", "noticed", "halve_test"], rows["half"][:3])
        self.assertEqual(["3", "6", "50% |"], rows["all"])
        self.assertEqual(1, done.returncode)
        noticed = self.tool("run", copy, build, "--fault", "below", "--fault", "half")
        self.assertEqual(0, noticed.returncode, noticed.stdout)
        self.assertEqual(1, self.tool("run", copy, build, "--fault", "below", "--fault", "hangs").returncode)
        self.assertIn("no such fault or room: belw", self.tool("run", copy, build, "--fault", "belw").stdout)

    def test_a_fault_whose_text_is_gone_fails_the_list(self) -> None:
        self.assertEqual(0, self.tool("check", self.sources).returncode)
        self.write("clamp.cc", CODE.replace("value < 0", "value <= 0"))
        done = self.tool("check", self.sources)
        self.assertEqual(1, done.returncode)
        self.assertIn("sample.toml: below: clamp.cc holds `old` 0 times, expected once", done.stdout)

    def test_a_fault_whose_text_stands_twice_fails_the_list(self) -> None:
        self.write("clamp.cc", CODE + "int Again(int value) { return value < 0; }\n")
        self.assertIn("below: clamp.cc holds `old` 2 times", self.tool("check", self.sources).stdout)

    def test_a_list_with_a_mistake_is_refused(self) -> None:
        for wrong, message in (
            ('kind = "limit"\n', "missing ['kind']"),
            ('kind = "limit"', "kind is odd"),
            ('name = "below"', "the name, or its checksum, is that of"),
            ("new = 'value < -5'", "new is old"),
        ):
            other = {'kind = "limit"\n': "", 'kind = "limit"': 'kind = "odd"', 'name = "below"': 'name = "hangs"',
                     "new = 'value < -5'": "new = 'value < 0'"}[wrong]
            self.write("tests/faults/sample.toml", FAULTS.replace(wrong, other, 1))
            self.assertIn(message, self.tool("check", self.sources).stdout)


if __name__ == "__main__":
    unittest.main()
