"""The other end of worker.py: a peer process that answers JSON lines."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

# glibc keeps freed pages instead of giving them back, so that large temporaries are not paged in anew each time.
MALLOC_KEEPS_PAGES = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(64 << 20),
}

# Libraries whose workers differ from the plain one by their environment.
VARIANTS = {"torch-keeps-pages": ("torch", MALLOC_KEEPS_PAGES)}


class PeerError(Exception):
    """The worker could not do what it was asked; says why."""


class JsonWorker:
    """One worker process. Not thread-safe."""

    def __init__(self, library: str, log_path: pathlib.Path):
        self.library = library
        module, extra = VARIANTS.get(library, (library, {}))
        script = pathlib.Path(__file__).with_name("worker.py")
        self._log = open(log_path, "w")
        self._process = subprocess.Popen(
            [sys.executable, str(script), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **extra},
            text=True,
        )

    def ask(self, **command) -> dict:
        """Sends a command, waits for its answer. Raises PeerError."""
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise PeerError(f"the {self.library} worker ended; see {self._log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"].splitlines()[0])
        return answer

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()
