"""The rows of docs/reliability.md: each an attack, what it is measured by, and its goal."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import runs
from attnd_server import Server, knows

MIB = 1 << 20
GIB = 1 << 30
SLACK_MIB = 64  # beside the total: allocator, gRPC, stacks
STALL_MS = 50
SMOKE_TOTAL = 128 * MIB
SMOKE_TURNS = 40
ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Bench:
    binary: pathlib.Path
    build: pathlib.Path
    flags: Sequence[str]
    seconds: float
    total: int = GIB  # --max_inflight_bytes, which all servers here are given

    def server(self, *flags: str, address_space: int | None = None) -> Server:
        every = [f"--max_inflight_bytes={self.total}", *self.flags, *flags]
        return Server(self.binary, every, address_space)

    def callers(self, target: str, shape: str, callers: int = 1, every_ms: float = 0, local: bool = False) -> runs.Callers:
        return runs.Callers(self.build, target, shape, callers, every_ms, local)


@dataclasses.dataclass
class Outcome:
    text: str
    good: bool  # whether the goal is reached


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    what: str
    goal: str
    measure: Callable[[Bench], Outcome]
    off: list[str] = dataclasses.field(default_factory=list)  # flags that turn the protection off


# What others get.


def others(bench: Bench, server: Server) -> list[runs.Callers]:
    """Those beside an attack: two with large calls, and one with a small one every 5 ms."""
    return [bench.callers(server.tcp, runs.LARGE, 2), bench.callers(server.tcp, runs.SMALL, 1, 5)]


def share(report: dict[str, Any]) -> str:
    return f"{100 * report['served'] / max(report['calls'], 1):.3g}% of {report['calls']}"


def served_beside(bench: Bench, server: Server, attack: Sequence[str]) -> Outcome:
    """The callers alone, for a third of the time, and then beside the attack."""
    alone = runs.together(others(bench, server), bench.seconds / 3)
    with runs.attack(attack):
        time.sleep(min(3, bench.seconds))  # until what was asked for is computed
        beside = runs.together(others(bench, server), bench.seconds)
    large, small = beside
    factor = large["p99_ms"] / alone[0]["p99_ms"] if alone[0]["p99_ms"] else 0
    text = f"large calls: {share(large)} served"
    if large["served"]:
        text += f", p99 {large['p99_ms']:.0f} ms ({factor:.1f}× of alone)"
    text += f"; small ones: {share(small)}, p99 {small['p99_ms']:.1f} ms ({alone[1]['p99_ms']:.1f} alone)"
    return Outcome(text, all(report["served"] == report["calls"] for report in beside) and factor <= 2)


def unread(bench: Bench, **arguments: Any) -> Outcome:
    with bench.server() as server:
        attack = runs.script("unread.py", target=server.tcp, bytes=bench.total, seconds=3600, **arguments)
        return served_beside(bench, server, attack)


def slow(bench: Bench, **arguments: Any) -> Outcome:
    with bench.server() as server:
        base = server.memory("RssAnon")
        attack = runs.script("slow.py", target=server.tcp, source=runs.ATTACKER, seconds=3600, **arguments)
        with runs.Peak(server) as peak:
            outcome = served_beside(bench, server, attack)
        outcome.text += f"; the server holds {peak.mib - base:.0f} MiB more at most"
        outcome.good = outcome.good and peak.mib <= base + bench.total / MIB + SLACK_MIB
        return outcome


# What the server holds.


def within_total(base: float, peak: float, total_mib: float, text: str = "") -> Outcome:
    limit = base + total_mib + SLACK_MIB
    return Outcome(f"{peak:.0f} MiB, of {limit:.0f} allowed{text}", peak <= limit)


def served_text(report: dict[str, Any]) -> str:
    text = f" ({report['served']} served, {report['refused']} refused"
    if report["refused"]:
        text += " with code " + ", ".join(report["codes"])
    return text + f", longest {report['seconds']:.1f} s)"


def memory_of_largest(bench: Bench, **arguments: Any) -> Outcome:
    with bench.server() as server:
        base = server.memory("RssAnon")
        target = server.unix if arguments.get("door") == "shared" else server.tcp
        with runs.Peak(server) as peak:
            report = runs.finish(runs.script("largest.py", target=target, **arguments), 600)
        return within_total(base, peak.mib, bench.total / MIB, served_text(report))


def memory_of_uploads(bench: Bench, **arguments: Any) -> Outcome:
    """What stays of bias tables counts as well: it is to be a part of the total."""
    with bench.server() as server:
        base = server.memory("RssAnon")
        with runs.Peak(server) as peak:
            report = runs.finish(runs.script("uploads.py", target=server.tcp, **arguments), 600)
        return within_total(base, peak.mib, bench.total / MIB, served_text(report))


def memory_of_everything(bench: Bench) -> Outcome:
    """Results that nobody reads, beside requests that do not end and headers that do not end."""
    with bench.server() as server:
        base = server.memory("RssAnon")
        common = {"target": server.tcp, "seconds": 3600}
        with runs.Peak(server) as peak:
            with (
                runs.attack(runs.script("unread.py", bytes=bench.total, **common)),
                runs.attack(runs.script("slow.py", kind="partial", connections=20, source="127.0.0.3", **common)),
                runs.attack(runs.script("slow.py", kind="endless", connections=8, source="127.0.0.4", **common)),
            ):
                time.sleep(bench.seconds / 2)
        return within_total(base, peak.mib, bench.total / MIB)


def burst(bench: Bench) -> Outcome:
    with bench.server() as server:
        runs.finish(runs.script("largest.py", target=server.tcp, kind="result"))
        base = server.memory("RssAnon")
        with runs.Peak(server) as peak:
            for kind in ("result", "packing"):
                runs.finish(runs.script("largest.py", target=server.tcp, kind=kind, at_once=8, times=2))
        time.sleep(60)
        after = server.memory("RssAnon")
        return Outcome(f"{base:.0f} MiB before, {peak.mib:.0f} at most, {after:.0f} after 60 s", after <= base + SLACK_MIB)


# How long small calls wait.


def stall(bench: Bench, command: Callable[[Server], Sequence[str]]) -> Outcome:
    """Small calls every 2 ms, by TCP and at the local door, alone and beside one request."""
    with bench.server() as server:
        shutil.copy(ROOT / "src/model/embedded/t5-tiny.json", server.models / "loads.json")
        probers = [
            bench.callers(server.tcp, runs.SMALL, every_ms=2),
            bench.callers(server.unix, runs.SMALL, every_ms=2, local=True),
        ]
        quiet = runs.together(probers, 3)
        running = [prober.start(seconds=3600) for prober in probers]
        time.sleep(0.3)
        try:
            runs.finish(command(server), 600)
        finally:
            busy = [runs.ended(process) for process in running]
    worst = max(report["max_ms"] for report in busy)
    text = f"TCP {busy[0]['max_ms']:.0f} ms ({quiet[0]['max_ms']:.0f} quiet)"
    text += f", local {busy[1]['max_ms']:.0f} ms ({quiet[1]['max_ms']:.0f} quiet)"
    late = max(report["late_ms"] for report in busy)
    if late > 5:
        text += f"; the probers' own timers were up to {late:.0f} ms late"
    failed = sum(sum(report["refused"].values()) for report in busy)
    if failed:
        text += f"; {failed} refused"
    return Outcome(text, worst <= STALL_MS and failed == 0)


def largest_of(kind: str, door: str, **arguments: Any) -> Callable[[Server], Sequence[str]]:
    def command(server: Server) -> Sequence[str]:
        target = server.unix if door == "shared" else server.tcp
        return runs.script("largest.py", target=target, kind=kind, door=door, source=None, **arguments)

    return command


def uploads_of(kind: str, **arguments: Any) -> Callable[[Server], Sequence[str]]:
    return lambda server: runs.script("uploads.py", target=server.tcp, kind=kind, **arguments)


# A budget, an address space and shared memory that are full.


def full_budget(bench: Bench) -> Outcome:
    with bench.server(f"--max_inflight_bytes={48 * MIB}") as server:
        once = runs.finish(runs.script("budget.py", target=server.tcp))
        again = runs.finish(runs.script("budget.py", target=server.tcp, repeat=True))
    text = f"{once['served']} of {once['calls']} served at once, {once['hints']} of {once['refused']} refusals with a hint; "
    text += f"{again['served']} of {again['calls']} with repeats, in {again['refused']} more attempts and {again['seconds']:.1f} s"
    return Outcome(text, once["hints"] == once["refused"] and again["served"] == again["calls"])


def small_address_space(bench: Bench, flags: Sequence[str] = (), **arguments: Any) -> Outcome:
    """2 GiB of addresses: what is refused, what stays, and whether the server can be ended."""
    codes: set[str] = set()
    with bench.server(*flags, address_space=2 * GIB) as server:
        target = server.unix if arguments.get("door") == "shared" else server.tcp
        held = []
        for _ in range(4):
            report = runs.finish(runs.script("largest.py", target=target, patience=20, **arguments))
            codes |= set(report["codes"])
            if not server.alive():
                return Outcome("the server has ended", False)
            held.append(server.memory("VmRSS"))
        took = server.end(35)
    text = f"codes {', '.join(sorted(codes)) or 'none'}; {held[0]:.0f} MiB after one round, {held[-1]:.0f} after four; "
    text += "SIGTERM does not end it" if took is None else f"ended in {took:.1f} s"
    return Outcome(text, codes <= {"8"} and held[-1] <= held[0] + SLACK_MIB and took is not None)


def hoarded_memory(bench: Bench) -> Outcome:
    with bench.server() as server:
        report = runs.finish(runs.script("hoard.py", target=server.unix))
    text = f"{report['held'] / GIB:.1f} GiB held; another caller's MiB: "
    text += "taken" if report["code"] == 0 else f"code {report['code']}"
    return Outcome(text, report["code"] == 0)


SHARES = ["--peer_shares=false", "--stall_seconds=inf"]
STALLS = ["--stall_seconds=inf"]
WITHIN = f"≤ base + total + {SLACK_MIB} MiB"
ALL_SERVED = "100% served, p99 ≤ 2×"
SHORT = f"≤ {STALL_MS} ms"


def unread_row(name: str, what: str, off: list[str] = SHARES, **arguments: Any) -> Row:
    return Row(f"unread-{name}", what, ALL_SERVED, functools.partial(unread, **arguments), off)


def slow_row(kind: str, what: str, off: Sequence[str] = (), **arguments: Any) -> Row:
    return Row(f"slow-{kind}", what, ALL_SERVED, functools.partial(slow, kind=kind, **arguments), list(off))


def memory_row(kind: str, what: str, **arguments: Any) -> Row:
    name = f"memory-{kind}" + ("-shared" if arguments.get("door") == "shared" else "")
    name += "-many" if arguments.get("at_once", 1) > 1 else ""
    return Row(name, what, WITHIN, functools.partial(memory_of_largest, kind=kind, **arguments))


def stall_row(name: str, what: str, command: Callable[[Server], Sequence[str]]) -> Row:
    return Row(f"stall-{name}", what, SHORT, functools.partial(stall, command=command))


FAR = {"source": runs.ATTACKER}
ROWS = [
    unread_row("stream", "a stream of 45 pieces, never read", method="stream", **FAR),
    unread_row("streams", "45 streams over 45 connections, never read", method="stream", connections=45, **FAR),
    unread_row("unary", "45 calls over one connection, never read", method="unary", **FAR),
    unread_row("unaries", "45 calls over 45 connections, never read", method="unary", connections=45, **FAR),
    unread_row("socket", "the stream's results left in the socket", method="stream", how="socket", **FAR),
    unread_row("same-address", "the stream, from the others' own address", STALLS, method="stream"),
    memory_row("units", "40 million sequences of one query and key"),
    memory_row("units", "the same through shared memory", door="shared"),
    memory_row("units", "six at once of them", door="shared", at_once=6),
    memory_row("packing", "240 MiB of half-precision keys and values, eight calls at once", at_once=8),
    memory_row("packing", "the same through shared memory", at_once=8, door="shared"),
    memory_row("result", "results of 256 MiB, eight calls at once", at_once=8),
    memory_row("ragged", "200,000 sequences of their own lengths, eight calls at once", at_once=8),
    memory_row("bias", "windows of GetBias of 4 million cells, eight at once", at_once=8),
    Row("memory-tables", "53 tables of 16 MiB for one model", WITHIN, functools.partial(memory_of_uploads, kind="tables")),
    Row("memory-spread", "53 models of a table of 16 MiB", WITHIN, functools.partial(memory_of_uploads, kind="spread")),
    Row("memory-far", "53 models of a table of some hundred bytes that takes 64 MiB", WITHIN,
        functools.partial(memory_of_uploads, kind="far")),
    Row("memory-everything", "unread results, unfinished requests and endless headers at once", WITHIN, memory_of_everything),
    Row("burst", "memory 60 s after a burst to the limit", f"≤ base + {SLACK_MIB} MiB", burst),
    stall_row("units", "40 million sequences of one query and key", largest_of("units", "tcp")),
    stall_row("units-shared", "the same through shared memory", largest_of("units", "shared")),
    stall_row("packing", "240 MiB of half-precision keys and values", largest_of("packing", "tcp", times=3)),
    stall_row("result", "a result of 256 MiB", largest_of("result", "tcp", times=3)),
    stall_row("ragged", "200,000 sequences of their own lengths", largest_of("ragged", "tcp", times=3)),
    stall_row("ragged-shared", "the same through shared memory", largest_of("ragged", "shared", times=3)),
    stall_row("bias", "a window of GetBias of 4 million cells", largest_of("bias", "tcp", times=3)),
    stall_row("upload", "uploads of a table of 64 MiB", uploads_of("largest", count=3)),
    stall_row("upload-tables", "uploads of 20 tables of 16 MiB for one model", uploads_of("tables", count=20)),
    stall_row("load", "100 times LoadModel", uploads_of("load", count=100, file="loads.json")),
    stall_row("list", "1000 models made and listed", uploads_of("many")),
    slow_row("headers", "1000 streams without a message", STALLS, connections=10),
    slow_row("partial", "2000 messages of which a part comes", STALLS, connections=20),
    slow_row("trickle", "2000 messages that come a byte at a time", STALLS, connections=20),
    slow_row("endless", "eight blocks of headers that never end", connections=8),
    slow_row("resets", "streams begun and reset without a pause"),
    slow_row("metadata", "calls with a megabyte of headers", streams=10),
    slow_row("bomb", "compressed messages of 200 MiB", streams=10),
    Row("budget", "16 callers of 12 MiB, 48 MiB in flight", "every refusal has a hint; all served with repeats", full_budget),
    *(
        Row(f"address-space-{kind}-{door}", f"2 GiB of addresses: {what}, {way}", "RESOURCE_EXHAUSTED (8), no growth, SIGTERM ends",
            functools.partial(small_address_space, kind=kind, door=door, **more))
        for kind, what, more in (
            ("units", "40 million sequences", {}),
            ("result", "16 results of 256 MiB at once", {"at_once": 16, "flags": [f"--max_inflight_bytes={8 * GIB}"]}),
        )
        for door, way in (("tcp", "calls"), ("stream", "pieces of streams"), ("shared", "local calls"))
    ),
    Row("hoard", "two connections share all the memory they may, and touch none", "another caller's MiB is taken",
        hoarded_memory, ["--peer_shares=false"]),
]


def smoke(build: pathlib.Path) -> str | None:
    """Whether an attack does what it should, and the protections too where this attnd has them; what is wrong, if anything."""
    binary = build / "server/attnd"
    protected = all(knows(binary, flag.removeprefix("--").partition("=")[0]) for flag in SHARES)
    if not protected:
        return refused_beside(Bench(binary, build, [], 1, SMOKE_TOTAL), expected=True)
    return refused_beside(Bench(binary, build, SHARES, 1, SMOKE_TOTAL), expected=True) or refused_beside(
        Bench(binary, build, [], 1, SMOKE_TOTAL), expected=False
    )


def refused_beside(bench: Bench, expected: bool) -> str | None:
    """Calls beside unread results until one is refused, or a few times; why that is wrong, if it is."""
    calls = 0
    with bench.server() as server:
        attack = runs.script("unread.py", target=server.tcp, bytes=bench.total, seconds=3600, **FAR)
        with runs.attack(attack):
            for _ in range(SMOKE_TURNS if expected else 3):
                time.sleep(0.5)
                report = runs.finish([*bench.callers(server.tcp, runs.LARGE, 2).command, "--calls=10"])
                calls += report["calls"]
                if report["refused"]:
                    return None if expected else f"refused beside the attack, with protection: {report['message']}"
    return f"all {calls} calls were served: the attack has no effect without protection" if expected else None
