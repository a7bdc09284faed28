"""attnctl run as a program, and what is expected of every failure."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, TypeVar

ATTNCTL = os.environ["ATTNCTL_BINARY"]
T = TypeVar("T")

# A sanitizer ends the program with this code, which is none of attnctl's.
SANITIZED = 99

# Words of libraries, of C++ and of the protocol, which say nothing to somebody at a shell.
JARGON = re.compile(
    r"absl|grpc status|what\(\)|std::|stod|stoi|terminate|errno|C-ares|protobuf|Deadline Exceeded|last error"
    r"|INVALID_ARGUMENT|UNAVAILABLE|UNKNOWN|INTERNAL|NOT_FOUND|RESOURCE_EXHAUSTED|DTYPE_|MASK_|LAYOUT_|BIAS_",
    re.IGNORECASE,
)
# Names with an underscore: flags of attnctl stand behind "--", and those of the server behind "attnd's --".
NAME = re.compile(r"(attnd's --|--|\()?\b([a-z]+(?:_[a-z]+)+)\b")
# What the user gave, which is repeated as it was.
GIVEN = re.compile(r"\"[^\"]*\"|\S*/\S*")
# Limits as `attnctl info` lists them, and a word of the safetensors format.
OTHER_NAMES = re.compile(r"\(max_\w+\)|\bdata_offsets\b")


@dataclass
class Run:
    words: Sequence[str]
    code: int
    out: bytes
    err: str

    def __str__(self) -> str:
        words = " ".join(word if len(word) < 80 else word[:40] + "..." for word in self.words)
        return f"attnctl {words}\nexit code {self.code}\n{self.err}"


class Attnctl:
    """Runs the program in a folder of its own, against one server."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        sanitizers = {
            name: f"{os.environ.get(name, '')}:exitcode={SANITIZED}" for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS")
        }
        self.environment = {**os.environ, **sanitizers, "ATTND_SERVER": server, "NO_COLOR": ""}

    def run(self, *words: str, **popen: Any) -> Run:
        options: Dict[str, Any] = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, **popen}
        done = subprocess.run(
            [ATTNCTL, *words],
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environment,
            timeout=120,
            check=False,
            **options,
        )
        return Run(words, done.returncode, done.stdout or b"", done.stderr.decode(errors="replace"))


def table() -> Dict[str, Any]:
    """The commands and flags, as the program itself describes them."""
    described: Dict[str, Any] = json.loads(subprocess.check_output([ATTNCTL, "help", "--json"]))
    return described


FLAGS = {flag["name"] for command in table()["commands"] for flag in command["flags"]}


def faults(run: Run, codes: Iterable[int], *, said: str = "", done: bool = False) -> List[str]:
    """What is wrong with how a run ended; `said` is a pattern of its message. With `done`, success is right too."""
    if done and run.code == 0:
        return []
    found = []
    if run.code not in set(codes):
        found.append(f"expected exit code {sorted(set(codes))}")
    lines = run.err.split("\n")
    if len(lines) != 3 or lines[2] or not lines[0].startswith("attnctl: ") or not lines[1].strip():
        found.append("expected a line that says what is wrong, and one that says what to do")
    own = OTHER_NAMES.sub("", GIVEN.sub("", run.err))
    if jargon := JARGON.search(own):
        found.append(f"{jargon[0]!r} is no word for a user")
    for kind, name in NAME.findall(own):
        if kind == "attnd's --" or (kind == "--" and name in FLAGS):
            continue
        found.append(f"{name!r} is no flag of attnctl")
    if not re.search(said, run.err):
        found.append(f"expected /{said}/")
    return [f"{run}{fault}" for fault in found]


def all_faults(check: Callable[[T], List[str]], cases: Iterable[T]) -> List[str]:
    """Those of all cases, several of which run at once."""
    with ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1)) as pool:
        return [fault for faults_of_one in pool.map(check, cases) for fault in faults_of_one]


def safetensors(path: Path, tensors: Dict[str, Any], keep: Optional[int] = None) -> Path:
    """Writes (dtype, shape) tensors of zeros; of the file, the first `keep` bytes."""
    bits = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I32": 32, "BOOL": 8}
    header: Dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = bits[dtype] // 8
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text + bytes(end)
    path.write_bytes(whole if keep is None else whole[:keep])
    return path
