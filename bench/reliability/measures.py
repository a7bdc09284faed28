"""What the rows of docs/reliability.md measure: each function starts a server, attacks it, and says what came of it."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import runs
from attnd_server import Server, background, knows

MIB = 1 << 20
GIB = 1 << 30
SLACK_MIB = 64  # beside the total: allocator, gRPC, stacks
STALL_MS = 50
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

    def callers(
        self, target: str, shape: str, callers: int = 1, every_ms: float = 0, local: bool = False
    ) -> runs.Callers:
        return runs.Callers(self.build, target, shape, callers, every_ms, local)


@dataclasses.dataclass
class Outcome:
    text: str
    good: bool  # whether the goal is reached


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
        outcome.good = outcome.good and within_total(base, peak.mib, bench.total / MIB, totals=2).good
        return outcome


# More calls than can be computed.

DEADLINE_MS = 1000
OPEN_CALLERS = 300  # enough for what is under way at once


def best_rate(bench: Bench, server: Server) -> float:
    """Calls that are answered in a second, the most that a few callers get one after the other."""
    seconds = bench.seconds / 3
    closed = [bench.callers(server.tcp, runs.LARGE, callers) for callers in (2, 4, 8)]
    return max(runs.together([callers], seconds)[0]["served"] / seconds for callers in closed)


def crowd_of(bench: Bench, server: Server, rate: float, callers: int = OPEN_CALLERS, **arguments: Any) -> runs.Callers:
    """Callers in an open loop."""
    return runs.Callers(bench.build, server.tcp, runs.LARGE, callers, 0, rate=rate, **arguments)


def goodput(bench: Bench, load: float, goal: float, deadline_ms: float = DEADLINE_MS) -> Outcome:
    """Calls that are answered in time while `load` times as many come as the server can answer."""
    with bench.server() as server:
        peak = best_rate(bench, server)
        crowd = crowd_of(bench, server, load * peak, deadline_ms=deadline_ms)
        report = runs.together([crowd], bench.seconds)[0]
    share_of_peak = report["served"] / (bench.seconds if deadline_ms else report["seconds"]) / peak
    text = f"{share_of_peak:.2f} of {peak:.0f} a second (closed loop); {share(report)}"
    text += " in time" if deadline_ms else ""
    if report["refused"]:
        counts = ", ".join(f"{count} {code}" for code, count in sorted(report["refused"].items()))
        text += f"; {counts}, p99 {report['refused_p99_ms']:.0f} ms"
    if report["late_ms"] > DEADLINE_MS / 2:
        text += f"; calls began up to {report['late_ms']:.0f} ms late: less was offered than meant"
    return Outcome(text, share_of_peak >= goal)


HONEST_PEERS = 4
TRUSTS_CALLERS = "--trusted_proxies=127.0.0.1"  # whose x-forwarded-for says which peer they are


def fairness(bench: Bench) -> Outcome:
    """Four peers that use half of the server together, beside one that asks for twice what it has: ten times a fifth.
    The greedy one's own computing has a low priority, since it would have its own machine."""
    with bench.server(*([TRUSTS_CALLERS] if knows(bench.binary, "trusted_proxies") else [])) as server:
        peak = best_rate(bench, server)
        each = peak / 2 / HONEST_PEERS
        honest = [
            crowd_of(bench, server, each, 8, forwarded_for=f"10.0.0.{i}", deadline_ms=DEADLINE_MS)
            for i in range(HONEST_PEERS)
        ]
        greedy = crowd_of(
            bench, server, 2 * peak, OPEN_CALLERS, forwarded_for="10.0.1.1", deadline_ms=DEADLINE_MS, nice=19
        )
        alone = runs.together(honest, bench.seconds / 3)
        beside = runs.together([*honest, greedy], bench.seconds)
    before, during = (max(report["p99_ms"] for report in reports) for reports in (alone, beside[:HONEST_PEERS]))
    calls = sum(report["calls"] for report in beside[:HONEST_PEERS])
    served = sum(report["served"] for report in beside[:HONEST_PEERS])
    text = f"the others: {100 * served / calls:.3g}% of {calls} served, p99 {during:.0f} ms ({before:.0f} alone, "
    text += f"{during / before:.1f}×); the greedy one: {share(beside[-1])}"
    return Outcome(text, served == calls and during <= 2 * before)


def recovery(bench: Bench) -> Outcome:
    """Two seconds after the end of an overload."""
    with bench.server() as server:
        peak = best_rate(bench, server)
        few = bench.callers(server.tcp, runs.LARGE, 2)
        before = runs.together([few], bench.seconds / 3)[0]
        runs.together([crowd_of(bench, server, 4 * peak, deadline_ms=DEADLINE_MS)], bench.seconds / 3)
        time.sleep(2)
        after = runs.together([few], bench.seconds / 3)[0]
    text = f"p99 {after['p99_ms']:.0f} ms, {share(after)} served ({before['p99_ms']:.0f} ms, {share(before)} before)"
    return Outcome(text, after["served"] == after["calls"] and after["p99_ms"] <= 1.5 * before["p99_ms"])


# What the server holds.


def within_total(base: float, peak: float, total_mib: float, text: str = "", totals: int = 1) -> Outcome:
    limit = base + totals * total_mib + SLACK_MIB
    return Outcome(f"{peak:.0f} MiB, of {limit:.0f} allowed{text}", peak <= limit)


def served_text(report: dict[str, Any]) -> str:
    text = f" ({report['served']} served, {report['refused']} refused"
    if report["refused"]:
        text += " with code " + ", ".join(report["codes"])
    return text + f", longest {report['seconds']:.1f} s)"


def memory_of_largest(bench: Bench, totals: int = 1, **arguments: Any) -> Outcome:
    with bench.server() as server:
        base = server.memory("RssAnon")
        target = server.unix if arguments.get("door") == "shared" else server.tcp
        with runs.Peak(server) as peak:
            report = runs.finish(runs.script("largest.py", target=target, **arguments), 600)
        return within_total(base, peak.mib, bench.total / MIB, served_text(report), totals)


def memory_of_uploads(bench: Bench, **arguments: Any) -> Outcome:
    """Of the total three quarters are for what stays, the bias tables, and the rest for uploads under way."""
    models = bench.total * 3 // 4
    flags = [f"--max_inflight_bytes={bench.total - models}"]
    if knows(bench.binary, "max_total_model_bytes"):
        flags.append(f"--max_total_model_bytes={models}")
    with bench.server(*flags) as server:
        base = server.memory("RssAnon")
        with runs.Peak(server) as peak:
            report = runs.finish(runs.script("uploads.py", target=server.tcp, **arguments), 600)
        return within_total(base, peak.mib, bench.total / MIB, served_text(report))


def memory_of_everything(bench: Bench) -> Outcome:
    """Results that nobody reads, beside requests that do not end and headers that do not end."""
    with bench.server() as server:
        base = server.memory("RssAnon")
        common = {"target": server.tcp, "seconds": 3600}
        unread_results = {"bytes": bench.total, "connections": 45, "addresses": 45, "source": runs.ATTACKER}
        with (
            runs.Peak(server) as peak,
            runs.attack(runs.script("unread.py", **unread_results, **common)),
            runs.attack(runs.script("slow.py", kind="partial", connections=20, source="127.0.1.2", **common)),
            runs.attack(runs.script("slow.py", kind="endless", connections=8, source="127.0.1.3", **common)),
        ):
            time.sleep(bench.seconds / 2)
        return within_total(base, peak.mib, bench.total / MIB, totals=2)


def burst(bench: Bench) -> Outcome:
    with bench.server() as server:
        runs.finish(runs.script("largest.py", target=server.tcp, kind="result"))
        base = server.memory("RssAnon")
        with runs.Peak(server) as peak:
            for kind in ("result", "packing"):
                runs.finish(runs.script("largest.py", target=server.tcp, kind=kind, at_once=8, times=2))
        time.sleep(60)
        after = server.memory("RssAnon")
        return Outcome(
            f"{base:.0f} MiB before, {peak.mib:.0f} at most, {after:.0f} after 60 s", after <= base + SLACK_MIB
        )


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


# Sessions.


def sessions_command(bench: Bench, server: Server, local: bool, sessions: int, *flags: str) -> list[str]:
    target = server.unix if local else server.tcp
    command = [str(bench.build / "bench/attnd_sessions"), f"--target={target}", f"--sessions={sessions}"]
    return [*command, f"--local={str(local).lower()}", *flags]


def many_sessions() -> list[str]:
    return ["--max_sessions=2000", "--max_peer_sessions=2000", "--nopeer_shares", f"--max_inflight_bytes={64 * GIB}"]


def idle_sessions(bench: Bench, local: bool) -> Outcome:
    """What a thousand open sessions take that nobody uses."""
    count = 1000
    with bench.server(*many_sessions()) as server:
        # What the first ones make, the others use too.
        with background(sessions_command(bench, server, local, 10, "--idle"), ready="holding"):
            pass
        base = server.memory("VmRSS")
        with background(sessions_command(bench, server, local, count, "--idle"), ready="holding"):
            each = (server.memory("VmRSS") - base) * 1024 / count
    return Outcome(f"{each:.1f} KiB each", each <= 40)


def sessions_ends(bench: Bench, local: bool) -> Outcome:
    """Ten thousand sessions, a tenth of them of processes that are killed, and a server that stops amid others."""
    with bench.server(*many_sessions(), "--drain_seconds=2") as server:
        report = runs.finish(sessions_command(bench, server, local, 1000, "--ends"), 600)
        base = server.memory("VmRSS")
        report = runs.finish(sessions_command(bench, server, local, 8000, "--ends"), 600)
        for _ in range(10):
            with background(sessions_command(bench, server, local, 100), ready="holding") as holder:
                holder.kill()
                holder.wait()
        last = runs.finish(sessions_command(bench, server, local, 4, "--ends"), 60)
        grown = server.memory("VmRSS") - base
        with background(sessions_command(bench, server, local, 100), ready="holding"):
            took = server.end(30)
    failed = report["failed"] + last["failed"]
    text = f"{report['ended'] + 2100} ended, {failed} otherwise than they should, {last['open']} left open; "
    text += f"memory {grown:+.1f} MiB after the first thousand; "
    text += "SIGTERM does not end it" if took is None else f"stopped amid 100 others in {took:.1f} s"
    return Outcome(text, failed == 0 and last["open"] == 0 and grown <= 8 and took is not None)


def steps_beside_prompts(bench: Bench, local: bool) -> Outcome:
    """Steps of one session alone, and beside a caller of prompts of 4,096 tokens."""
    with bench.server() as server:
        steps = sessions_command(bench, server, local, 1, f"--seconds={bench.seconds}")
        alone = runs.finish(steps)
        prompts = bench.callers(server.tcp, "1,8,4096,64").start(3600)
        time.sleep(1)
        try:
            beside = runs.finish(steps)
        finally:
            served = runs.ended(prompts)
    factor = beside["p99_us"] / alone["p99_us"]
    text = f"p99 {beside['p99_us']:.0f} us ({alone['p99_us']:.0f} alone, {factor:.1f}×), "
    text += f"p50 {beside['p50_us']:.0f} us ({alone['p50_us']:.0f}); prompts: {share(served)} served"
    return Outcome(text, factor <= 3)


# A budget, an address space and shared memory that are full.


def full_budget(bench: Bench) -> Outcome:
    with bench.server(f"--max_inflight_bytes={128 * MIB}") as server:
        once = runs.finish(runs.script("budget.py", target=server.tcp))
        again = runs.finish(runs.script("budget.py", target=server.tcp, repeat=True))
    text = f"{once['served']} of {once['calls']} served, {once['hints']} of {once['refused']} refusals with a hint; "
    text += f"with repeats {again['served']}, in {again['refused']} more attempts and {again['seconds']:.1f} s"
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
                return Outcome(
                    f"the server has ended with status {server.process.poll()}: {server.last_words()}", False
                )
            held.append(server.memory("VmRSS"))
        took = server.end(35)
    text = f"codes {', '.join(sorted(codes)) or 'none'}; {held[0]:.0f} MiB after one round, {held[-1]:.0f} after four; "
    text += "SIGTERM does not end it" if took is None else f"ended in {took:.1f} s"
    return Outcome(text, codes <= {"8"} and held[-1] <= held[0] + SLACK_MIB and took is not None)


def hoarded_memory(bench: Bench) -> Outcome:
    with bench.server("--unix_socket_mode=0666") as server:
        report = runs.finish(runs.script("hoard.py", target=server.unix))
    text = f"{report['held'] / GIB:.1f} GiB held; another user's MiB: "
    text += "taken" if report["code"] == 0 else f"code {report['code']}"
    return Outcome(text, report["code"] == 0)
