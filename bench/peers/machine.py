"""The machine and the build that a table was measured on."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys

ARM = platform.machine() in ("aarch64", "arm64")
FLAGS = ("asimd", "asimdhp", "bf16", "sve") if ARM else ("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_bf16")
# The kernel that all machines of this architecture of the last ten years can run.
COMMON_KERNEL = "aarch64" if ARM else "x86-64-v3"


def _cpuinfo(field: str) -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _caches() -> str:
    sizes = []
    for index in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (index / "type").read_text().strip()
        if kind != "Instruction":
            sizes.append(f"L{(index / 'level').read_text().strip()} {(index / 'size').read_text().strip()}")
    return ", ".join(sizes)


def peak_mebibytes(pid: int) -> float:
    """The most memory that a process has had resident so far."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no VmHWM")


ROOT = pathlib.Path(__file__).resolve().parents[2]
# What the benchmarks write. One that follows another finds these changed, and attnd is the same.
WRITTEN = ("bench/results", "docs/performance.md", "docs/transformers.md", "docs/images/transformers_speedup.svg")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def commit() -> str:
    """The commit of this tree, with "-dirty" if a tracked file that no benchmark writes has changes."""
    written = (f":(exclude){path}" for path in WRITTEN)
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    head = _git("rev-parse", "--short=10", "HEAD")
    return f"{head}-dirty" if head and changed else head or "unknown"


def expect_clean(facts: dict[str, str], allowed: bool) -> None:
    """Ends the program if what will be measured is no commit: nobody could repeat the figures of the page."""
    if facts["attnd commit"].endswith("-dirty") and not allowed:
        sys.exit(
            f"the tree has changes ({facts['attnd commit']}): commit them before a measurement that writes "
            "its page, or give --allow-dirty"
        )


def describe() -> dict[str, str]:
    have = set(_cpuinfo("Features" if ARM else "flags").split())
    model = (
        f"{platform.machine()} (implementer {_cpuinfo('CPU implementer')}, part {_cpuinfo('CPU part')})"
        if ARM
        else f"{_cpuinfo('model name') or platform.machine()} "
        f"(family {_cpuinfo('cpu family')}, model {_cpuinfo('model')})"
    )
    return {
        "CPU": model,
        "instruction sets": ", ".join(flag for flag in FLAGS if flag in have),
        "CPUs": str(len(os.sched_getaffinity(0))),
        "caches": _caches(),
        "Linux": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "Python": sys.version.split()[0],
        "attnd commit": commit(),
    }


def with_packages(*names: str) -> dict[str, str]:
    """describe(), the versions of those of these packages that are installed, the date and the load."""
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        **describe(),
        **versions,
        "date": datetime.date.today().isoformat(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
