"""Starts a peer's process, which runs worker.py, and sends it commands. Commands and answers are lines of JSON."""

from __future__ import annotations

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

# Make glibc keep freed pages instead of returning them to the system. Large temporaries then cause no new page faults.
MALLOC_KEEPS_PAGES = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(64 << 20),
}

# PyTorch allocates its outputs and temporaries itself. This makes it ask for huge pages for them, as our kernel does.
TORCH_ON_HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}

# Workers whose module or environment does not follow from their names: the module, and the variables to add to the
# environment. The same module may have several workers, which differ in their variables.
VARIANTS = {
    "torch": ("torch", TORCH_ON_HUGE_PAGES),
    "torch-as-it-comes": ("torch", {}),
    "torch-keeps-pages": ("torch", MALLOC_KEEPS_PAGES),
}

SCRIPT = pathlib.Path(__file__).with_name("worker.py")
# Compiling FlexAttention and checking the largest problem take about a minute.
PATIENCE_SECONDS = 300.0


class PeerError(Exception):
    """A command has failed. The message says why."""


class JsonWorker:
    """One worker process. Not thread-safe."""

    def __init__(
        self,
        library: str,
        log_path: pathlib.Path,
        patience: float = PATIENCE_SECONDS,
        script: pathlib.Path = SCRIPT,
    ):
        self.library = library
        self.failed = False  # A command got no answer; the process and all that it prepared are gone.
        self._patience = patience
        self._answers = b""
        module, extra = VARIANTS.get(library, (library, {}))
        # numpy asks for huge pages by itself in some versions. That is turned off, so that arrays outside a case's own
        # pages have the system's default with every version.
        environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", **extra}
        self._log = open(log_path, "a")
        self._process = subprocess.Popen(
            [sys.executable, str(script), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )

    def ask(self, **command) -> dict:
        """Sends a command and returns its answer. Raises PeerError.

        Waits for the usual patience, plus the command's `seconds` if it has any. If the worker dies, does not answer in
        time, or its answer is not JSON, this ends the worker and sets `failed`.
        """
        if self.failed:
            raise PeerError(f"the {self.library} worker has ended")
        deadline = time.monotonic() + command.get("seconds", 0.0) + self._patience
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
            answer = json.loads(self._line(deadline))
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.failed = True
            raise PeerError(self._end(error)) from error
        if "error" in answer:
            raise PeerError(answer["error"].splitlines()[0])
        return answer

    def close(self) -> None:
        """Ends the worker. It may have ended already."""
        try:
            self._process.stdin.close()
        except OSError:
            pass  # The worker has closed its end of the pipe.
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _line(self, deadline: float) -> bytes:
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._answers:
            if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                raise EOFError
            self._answers += chunk
        line, _, self._answers = self._answers.partition(b"\n")
        return line

    def _end(self, error: Exception) -> str:
        """Ends the process after a command without an answer. Returns the reason for the missing answer."""
        log = f"see {pathlib.Path(self._log.name).name}"
        if isinstance(error, TimeoutError):
            self._process.kill()
            self._process.wait()
            return f"the {self.library} worker did not answer for {self._patience:.0f} s; {log}"
        if isinstance(error, ValueError):
            self._process.kill()
        code = self._process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return f"the {self.library} worker ended {how}; {log}"
