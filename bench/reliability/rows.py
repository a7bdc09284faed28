"""The rows of docs/reliability.md: each an attack, what it is measured by, and its goal."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import runs
from attnd_server import Server, knows
from measures import (
    GIB,
    MIB,
    SLACK_MIB,
    STALL_MS,
    Bench,
    Outcome,
    burst,
    fairness,
    full_budget,
    goodput,
    hoarded_memory,
    idle_sessions,
    largest_of,
    memory_of_everything,
    memory_of_largest,
    memory_of_uploads,
    recovery,
    sessions_ends,
    slow,
    small_address_space,
    stall,
    steps_beside_prompts,
    unread,
    uploads_of,
)

SMOKE_TOTAL = 128 * MIB
SMOKE_TURNS = 40


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    what: str
    goal: str
    measure: Callable[[Bench], Outcome]
    off: list[str] = dataclasses.field(default_factory=list)  # flags that turn the protection off
    on: list[str] = dataclasses.field(
        default_factory=list
    )  # flags that set it, where its default is not what is measured


SHARES = ["--peer_shares=false", "--stall_seconds=inf"]
IMPATIENT = ["--stall_seconds=3", "--min_rate=16MiB"]
STALLS = ["--stall_seconds=inf"]
WITHIN = f"≤ base + total + {SLACK_MIB} MiB"
ARRIVING = f"≤ base + 2 × total + {SLACK_MIB} MiB"  # with messages that have not arrived in full
ALL_SERVED = "100% served, p99 ≤ 2×"
SHORT = f"≤ {STALL_MS} ms"


def unread_row(name: str, what: str, off: Sequence[str] = SHARES, **arguments: Any) -> Row:
    return Row(f"unread-{name}", what, ALL_SERVED, functools.partial(unread, **arguments), list(off))


def slow_row(kind: str, what: str, off: Sequence[str] = (), **arguments: Any) -> Row:
    return Row(
        f"slow-{kind}", what, f"{ALL_SERVED}, {ARRIVING}", functools.partial(slow, kind=kind, **arguments), list(off)
    )


def memory_row(kind: str, what: str, **arguments: Any) -> Row:
    name = f"memory-{kind}" + ("-shared" if arguments.get("door") == "shared" else "")
    name += "-many" if arguments.get("at_once", 1) > 1 else ""
    goal = ARRIVING if arguments.get("totals") == 2 else WITHIN
    return Row(name, what, goal, functools.partial(memory_of_largest, kind=kind, **arguments))


def stall_row(name: str, what: str, command: Callable[[Server], Sequence[str]]) -> Row:
    return Row(f"stall-{name}", what, SHORT, functools.partial(stall, command=command))


def goodput_rows(load: float, goal: float) -> list[Row]:
    """As the server is, and where clients may send little before they are let in."""
    what = f"calls with a deadline of 1 s, {load:g} times as many as can be answered"
    measure = functools.partial(goodput, load=load, goal=goal)
    all_at_once = ["--max_reads=1000000"]
    near = ["--noreceive_ahead"]
    return [
        Row(f"goodput-{load:g}", what, f"≥ {goal:g} of the peak", measure, all_at_once),
        Row(
            f"goodput-{load:g}-near",
            f"the same, with {near[0]}",
            f"≥ {goal:g} of the peak",
            measure,
            all_at_once + near,
            near,
        ),
    ]


def session_rows(name: str, what: str, goal: str, measure: Callable[..., Outcome]) -> list[Row]:
    """By each door."""
    return [
        Row(f"sessions-{name}-{door}", f"{what}, {how}", goal, functools.partial(measure, local=door == "local"))
        for door, how in (("grpc", "by gRPC"), ("local", "at a Unix socket"))
    ]


def address_space_row(kind: str, door: str, what: str, **arguments: Any) -> Row:
    measure = functools.partial(small_address_space, kind=kind, door=door, **arguments)
    goal = "RESOURCE_EXHAUSTED (8), no growth, SIGTERM ends"
    return Row(f"address-space-{kind}-{door}", f"2 GiB of addresses: {what}", goal, measure)


ROOMY = [f"--max_inflight_bytes={8 * GIB}"]  # more than there are addresses for
FAR: dict[str, Any] = {"source": runs.ATTACKER}
ROWS = [
    # A stream's window, which bounds what one takes, cannot be turned off.
    unread_row("stream", "a stream of 45 pieces, never read", (), method="stream", **FAR),
    unread_row("streams", "45 streams over 45 connections, never read", method="stream", connections=45, **FAR),
    unread_row("unary", "45 calls over one connection, never read", method="unary", **FAR),
    unread_row("unaries", "45 calls over 45 connections, never read", method="unary", connections=45, **FAR),
    unread_row("socket", "45 calls whose results are left in the socket", method="unary", how="socket", **FAR),
    unread_row(
        "addresses", "45 streams, each from an address of its own", method="stream", connections=45, addresses=45, **FAR
    ),
    Row(
        "unread-same-address",
        f"45 calls from the others' own address, never read, with {' '.join(IMPATIENT)}",
        ALL_SERVED,
        functools.partial(unread, method="unary"),
        STALLS,
        IMPATIENT,
    ),
    memory_row("units", "40 million sequences of one query and key"),
    memory_row("units", "the same through shared memory", door="shared"),
    memory_row("some-units", "5 million of them, six calls at once", at_once=6, door="shared"),
    memory_row("packing", "240 MiB of half-precision keys and values, eight calls at once", at_once=8, totals=2),
    memory_row("packing", "the same through shared memory", at_once=8, door="shared"),
    memory_row("result", "results of 256 MiB, eight calls at once", at_once=8),
    memory_row("ragged", "200,000 sequences of their own lengths, eight calls at once", at_once=8),
    memory_row("bias", "windows of GetBias of 4 million cells, eight at once", at_once=8),
    Row(
        "memory-tables",
        "53 tables of 16 MiB for one model",
        WITHIN,
        functools.partial(memory_of_uploads, kind="tables"),
    ),
    Row("memory-spread", "53 models of a table of 16 MiB", WITHIN, functools.partial(memory_of_uploads, kind="spread")),
    Row(
        "memory-far",
        "53 models of a table of some hundred bytes that takes 64 MiB",
        WITHIN,
        functools.partial(memory_of_uploads, kind="far"),
    ),
    Row(
        "memory-everything",
        "unread results, unfinished requests and endless headers at once",
        ARRIVING,
        memory_of_everything,
    ),
    Row("burst", "memory 60 s after a burst to the limit", f"≤ base + {SLACK_MIB} MiB", burst),
    stall_row("units", "40 million sequences of one query and key", largest_of("units", "tcp")),
    stall_row("units-shared", "the same through shared memory", largest_of("units", "shared")),
    stall_row("fragments", "a million of them in frames of 256 bytes", largest_of("fragments", "tcp")),
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
    *goodput_rows(0.9, 0.85),
    *goodput_rows(1.5, 0.9),
    *goodput_rows(2, 0.9),
    *goodput_rows(4, 0.9),
    *goodput_rows(10, 0.85),
    *(
        Row(
            f"goodput-free-{load}",
            f"calls without a deadline, {load} times as many as can be answered",
            f"≥ {goal:g} of the peak",
            functools.partial(goodput, load=load, goal=goal, deadline_ms=0),
        )
        for load, goal in ((2, 0.95), (10, 0.9))
    ),
    Row(
        "fairness",
        "four peers with half of what can be answered, beside one that asks for twice of all",
        "the others: 100% served, p99 ≤ 2×",
        fairness,
    ),
    Row("recovery", "2 s after an overload of four times", "100% served, p99 ≤ 1.5×", recovery),
    *session_rows("idle", "1,000 open sessions that nobody uses", "≤ 40 KiB each", idle_sessions),
    *session_rows(
        "ends",
        "10,000 sessions that are closed, dropped, cancelled, evicted or killed",
        "none left, ≤ 8 MiB",
        sessions_ends,
    ),
    *session_rows("beside", "steps of a session beside prompts of 4,096 tokens", "p99 ≤ 3×", steps_beside_prompts),
    Row(
        "budget",
        "16 callers of 12 MiB, 128 MiB in flight",
        "every refusal has a hint; all served with repeats",
        full_budget,
    ),
    address_space_row("units", "tcp", "40 million sequences, calls"),
    address_space_row("units", "stream", "40 million sequences, pieces of streams"),
    address_space_row("units", "shared", "40 million sequences, local calls"),
    address_space_row("result", "tcp", "16 results of 256 MiB at once, calls", at_once=16, flags=ROOMY),
    address_space_row("result", "stream", "16 results of 256 MiB at once, pieces of streams", at_once=16, flags=ROOMY),
    Row(
        "hoard",
        "two connections share all the memory they may, and touch none",
        "another user's MiB is taken",
        hoarded_memory,
        ["--peer_shares=false"],
    ),
]


def name_of(flag: str) -> str:
    return flag.removeprefix("--").partition("=")[0]


def smoke(build: pathlib.Path) -> str | None:
    """What is wrong with an attack, or with the protections where this attnd has them; None if nothing is."""
    binary = build / "server/attnd"
    known = [flag for flag in SHARES if knows(binary, name_of(flag))]
    wrong = refused_beside(Bench(binary, build, known, 1, SMOKE_TOTAL), expected=True)
    if wrong is None and known:
        wrong = refused_beside(Bench(binary, build, [], 1, SMOKE_TOTAL), expected=False)
    return wrong


def refused_beside(bench: Bench, expected: bool) -> str | None:
    """Calls beside unread results until one is refused, or a few times; why that is wrong, if it is."""
    calls = 0
    with bench.server() as server:
        attack = runs.script(
            "unread.py", target=server.tcp, bytes=bench.total, seconds=3600, method="unary", connections=5, **FAR
        )
        with runs.attack(attack):
            for _ in range(SMOKE_TURNS if expected else 3):
                time.sleep(0.5)
                report = runs.finish([*bench.callers(server.tcp, runs.LARGE, 2).command, "--calls=10"])
                calls += report["calls"]
                if report["refused"]:
                    return None if expected else f"refused beside the attack, with protection: {report['message']}"
    return f"all {calls} calls were served: the attack has no effect without protection" if expected else None
