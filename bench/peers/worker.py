"""A process that prepares, checks and times peer paths on request.

Speaks JSON lines: one command on stdin, one answer on stdout.
  {"op": "versions"}                                   -> {"versions": {...}}
  {"op": "prepare", "path": NAME, "case": {...}}       -> {"id": N, "max_error": E, "allowed": A, "note": "...",
                                                           "huge_fraction": F}    of K and V, as the library reads them
  {"op": "time", "id": N, "seconds": S, "cpus": [..]}  -> {"ms": [...]}
  {"op": "drop", "id": N}                              -> {}
Any failure is answered by {"error": "..."} and the worker goes on.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import ModuleType

import formula
import pages
from case import Case, make_inputs

MODULES = {"torch": "torch_paths", "onnx": "onnx_paths", "ggml": "ggml_paths"}


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def pin_all_threads(cpus: list[int]) -> None:
    """Restricts every thread of this process, so also the ones that a library started earlier."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cpus)


class Worker:
    def __init__(self, module: ModuleType):
        self._module = module
        self._all_cpus = sorted(os.sched_getaffinity(0))
        self._paths = {}
        self._next_id = 1

    def versions(self, command: dict) -> dict:
        return {"versions": self._module.versions()}

    def prepare(self, command: dict) -> dict:
        pin_all_threads(self._all_cpus)
        inputs = make_inputs(Case(**command["case"]))
        path = self._module.prepare(command["path"], inputs)
        checked = formula.check(inputs, path.output(path.run()), path.with_bias, path.precision)
        self._paths[self._next_id] = path
        self._next_id += 1
        huge = pages.huge_fraction(path.memory)
        return {"id": self._next_id - 1, "note": path.note, "huge_fraction": huge, **checked}

    def time(self, command: dict) -> dict:
        run = self._paths[command["id"]].run
        pin_all_threads(command["cpus"])
        milliseconds = []
        begin = time.perf_counter()
        while time.perf_counter() - begin < command["seconds"]:
            start = time.perf_counter_ns()
            run()
            milliseconds.append((time.perf_counter_ns() - start) / 1e6)
        # The first one warms the caches, which others have used since; it counts if it is all there is.
        return {"ms": milliseconds[1:] or milliseconds}

    def drop(self, command: dict) -> dict:
        del self._paths[command["id"]]
        gc.collect()
        return {}

    def answer(self, command: dict) -> dict:
        operations = {"versions": self.versions, "prepare": self.prepare, "time": self.time, "drop": self.drop}
        try:
            return operations[command["op"]](command)
        except Exception as error:  # Whatever a library raises must reach the table as a reason, not end the run.
            traceback.print_exc()
            return {"error": reason(error)}


def answering(library: str) -> Callable[[dict], dict]:
    """What answers the commands; if the library cannot be imported, the reason answers all of them."""
    try:
        return Worker(importlib.import_module(MODULES[library])).answer
    except Exception as error:  # A library may fail in any way; the traceback goes to the log.
        traceback.print_exc()
        answer = {"error": reason(error)}
        return lambda command: answer


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What a library prints must not mix with the answers.
    answer = answering(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
