"""The wire's goals: which ratio of which measurements, and what it should be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import page
from results import NotMeasured, not_measured

# The figures by p50 and by best; None where there is no such figure.
Figure = tuple[float, float | None]


@dataclasses.dataclass(frozen=True)
class Goal:
    what: str
    setting: str
    bound: float
    figure: Callable[[dict], Figure]  # of all results; raises NotMeasured
    at_least: bool = False
    unit: str = "x"  # "x": a ratio, "MiB"

    def cells(self, results: dict) -> list[str]:
        bound = f"{'≥' if self.at_least else '≤'} {self._text(self.bound, 'g')}"
        try:
            by_p50, by_best = self.figure(results)
        except NotMeasured as missing:
            return [self.what, self.setting, bound, "–", "–", not_measured(missing)]
        reached = by_p50 >= self.bound if self.at_least else by_p50 <= self.bound
        form = ".1f" if self.unit == "MiB" else ".2f"
        best = "–" if by_best is None else self._text(by_best, form)
        return [self.what, self.setting, bound, self._text(by_p50, form), best, "reached" if reached else "**not reached**"]

    def _text(self, value: float, form: str) -> str:
        return f"{value:{form}} MiB" if self.unit == "MiB" else f"{value:{form}}×"


def _get(results: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A line of the results; raises NotMeasured if it, or what it belongs to, is missing or failed."""
    for key in keys:
        results = results.get(key, {"error": "not run"})
        if "error" in results:
            raise NotMeasured(f"{key}: {results['error']}")
    return results


def _ratio(above: tuple[str, ...], below: tuple[str, ...], scale: float = 1.0) -> Callable[[dict], Figure]:
    def figure(results: dict) -> Figure:
        a, b = _get(results, *above), _get(results, *below)
        return a["p50_ms"] / b["p50_ms"] / scale, a["min_ms"] / b["min_ms"] / scale

    return figure


def _field(*keys: str, p50: str, best: str = "") -> Callable[[dict], Figure]:
    def figure(results: dict) -> Figure:
        line = _get(results, *keys)
        return line[p50], line[best] if best else None

    return figure


def _echo_goals() -> Iterator[Goal]:
    for size in ("1", "4", "16"):
        tcp = ("echo", size, "tcp")
        ours = (*tcp, "attnd, one message")
        setting = f"{size} MiB a tensor, TCP, one message"
        for what, peer, bound in (
            ("Bytes per second, echo, against Arrow Flight", "Arrow Flight", 1.3),
            ("The same against a plain socket", "plain socket", 0.75),
        ):
            yield Goal(what, setting, bound, _ratio((*tcp, peer), ours), at_least=True)
    for transport in ("tcp", "uds"):
        large, small = ("echo", "16", transport, "attnd, pieces"), ("echo", "1", transport, "attnd, one message")
        setting = f"{transport}, time per byte"
        yield Goal("16 MiB in pieces against 1 MiB in one message", setting, 1.0, _ratio(large, small, scale=16))


def _call_goals() -> Iterator[Goal]:
    for name, bound in (
        ("TCP, one message", 1.16),
        ("TCP, pieces", 1.16),
        ("Unix socket, one message", 1.10),
        ("Unix socket, pieces", 1.10),
        ("shared memory, in place", 1.02),
        ("local socket, in place", 1.02),
    ):
        figure = _field("calls", "n2048", name, p50="to_kernel_p50", best="to_kernel_min")
        yield Goal("A call against its kernel alone, n = 2048", name, bound, figure)
    smallest = _field("calls", "smallest", "Unix socket, one message", p50="to_empty_call_p50")
    yield Goal("The smallest call against an empty one", "Unix socket", 1.25, smallest)
    # Measured in turns with gRPC at the same server.
    by_local = _field("calls", "smallest", "local socket, in place", p50="to_grpc_p50", best="to_grpc_min")
    yield Goal("The smallest call against gRPC over the Unix socket", "local socket", 0.35, by_local)


def _race_goals() -> Iterator[Goal]:
    for n, bound in (("128", 3.0), ("512", 3.0), ("2048", 2.5)):
        figure = _ratio(("race", n, "python"), ("race", n, "attnd"))
        yield Goal("Against the Python server", f"n = {n}, TCP", bound, figure, at_least=True)


def _memory_goal() -> Goal:
    # 8 heads, n = 8192, d = 64, fp32: q, k, v and the output, then packed K and V, then a thread's tiles. The client sends
    # such a call in pieces, so less is held at a time.
    tensors, packed, tiles = 4 * 16, 2 * 16, 8

    def raised(results: dict) -> Figure:
        return _get(results, "memory")["raised_mib"], None

    what, setting = "Memory that a call of 64 MiB takes in the server", "n = 8192, one thread, in pieces"
    return Goal(what, setting, tensors + packed + tiles, raised, unit="MiB")


def table(results: dict) -> str:
    goals = [*_echo_goals(), *_call_goals(), *_race_goals(), _memory_goal()]
    return page.table(("what", "setting", "goal", "by p50", "by best", ""), [goal.cells(results) for goal in goals])
