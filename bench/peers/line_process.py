"""A process that answers each line of its standard input with a line of JSON."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
from typing import Any

from results import NotMeasured


class LineProcess:
    """Starts `command`, a program that ends when its input ends. close() closes its input and waits for it."""

    def __init__(self, command: list[str], name: str = "") -> None:
        self._name = name or pathlib.Path(command[0]).name
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str) -> Any:
        """Sends a line and returns the answer. Raises NotMeasured if the process ends without an answer."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            raise NotMeasured(f"{self._name} ended with status {self._process.wait()}") from None

    def close(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
