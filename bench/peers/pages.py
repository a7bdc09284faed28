"""Arrays on pages of a chosen kind, as bench/pages.h gives them to attnd, and a count of what the system gave.

numpy asks for huge pages by itself or not, depending on its version and the environment; nothing here relies on it.
"""

from __future__ import annotations

import mmap
import pathlib
import re
from collections.abc import Iterable

import numpy as np

KINDS = ("huge", "small")
HUGE_PAGE_BYTES = 2 << 20

_MODE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_RANGE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")

# Where a tensor lies: address and bytes.
Span = tuple[int, int]


def available() -> bool:
    """Whether a process may have huge pages by asking for them."""
    return _MODE.exists() and "[never]" not in _MODE.read_text()


def empty(shape: tuple[int, ...], dtype: np.dtype | type, kind: str) -> np.ndarray:
    """A zeroed array that begins on a huge page boundary and has whole huge pages to itself, advised as `kind` says."""
    if kind not in KINDS:
        raise ValueError(f"pages: expected of {', '.join(KINDS)}; got {kind!r}")
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    inner = -(-max(count * dtype.itemsize, 1) // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    # Before and after it at least a page stays without the advice, so that the kernel merges no two such mappings.
    memory = mmap.mmap(-1, inner + 2 * HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = HUGE_PAGE_BYTES - np.frombuffer(memory, np.uint8).ctypes.data % HUGE_PAGE_BYTES
    try:
        memory.madvise(mmap.MADV_HUGEPAGE if kind == "huge" else mmap.MADV_NOHUGEPAGE, start, inner)
    except OSError:
        pass  # A system without huge pages has small ones only; huge_fraction() tells.
    # The array keeps the mapping alive.
    return np.frombuffer(memory, dtype, count, start).reshape(shape)


def copy(values: np.ndarray, kind: str) -> np.ndarray:
    """The same values, in row-major order, in memory of empty()."""
    made = empty(values.shape, values.dtype, kind)
    np.copyto(made, values)
    return made


def span(values: np.ndarray) -> Span:
    return values.ctypes.data, values.nbytes


def huge_fraction(spans: Iterable[Span]) -> float:
    """How much of the resident memory of the mappings that the spans touch lies on huge pages, 0 to 1: the least of all.

    Memory of empty() is counted exactly. Other memory shares its mapping with whatever else lies there.
    """
    smaps = pathlib.Path("/proc/self/smaps").read_text()
    return min(_huge_fraction(smaps, begin, begin + size) for begin, size in spans)


def _huge_fraction(smaps: str, begin: int, end: int) -> float:
    sums = {"Rss": 0, "AnonHugePages": 0}
    within = False
    for line in smaps.splitlines():
        if header := _RANGE.match(line):
            within = int(header[1], 16) < end and begin < int(header[2], 16)
        elif within:
            name, _, value = line.partition(":")
            if name in sums:
                sums[name] += int(value.split()[0])
    return sums["AnonHugePages"] / sums["Rss"] if sums["Rss"] else 0.0
