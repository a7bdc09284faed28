"""The wire's goals: which ratio of which measurements, and what it should be."""

from __future__ import annotations

import dataclasses

import page


@dataclasses.dataclass(frozen=True)
class Row:
    what: str
    setting: str
    bound: float
    by_p50: float
    by_min: float | None
    at_least: bool = False
    unit: str = "x"  # "x": a ratio, "MiB"

    def cells(self) -> list[str]:
        def text(value: float | None) -> str:
            if value is None:
                return "–"
            return f"{value:.1f} MiB" if self.unit == "MiB" else f"{value:.2f}×"

        reached = self.by_p50 >= self.bound if self.at_least else self.by_p50 <= self.bound
        bound = f"{'≥' if self.at_least else '≤'} {self.bound:g}{' MiB' if self.unit == 'MiB' else '×'}"
        return [self.what, self.setting, bound, text(self.by_p50), text(self.by_min), "reached" if reached else "**not reached**"]


def _ratio(above: dict, below: dict) -> tuple[float, float]:
    return above["p50_ms"] / below["p50_ms"], above["min_ms"] / below["min_ms"]


def _echo_rows(echo: dict) -> list[Row]:
    rows = []
    for size, transports in echo.items():
        ours, tcp = transports["tcp"]["attnd, one message"], transports["tcp"]
        setting = f"{size} MiB a tensor, TCP, one message"
        rows.append(Row("Bytes per second, echo, against Arrow Flight", setting, 1.3, *_ratio(tcp["Arrow Flight"], ours), True))
        rows.append(Row("The same against a raw socket", setting, 0.5, *_ratio(tcp["raw socket"], ours), True))
    for transport in ("tcp", "uds"):
        large, small = (echo[size][transport] for size in ("16", "1"))
        p50, best = _ratio(large["attnd, pieces"], small["attnd, one message"])
        setting = f"{transport}, time per byte"
        rows.append(Row("16 MiB in pieces against 1 MiB in one message", setting, 1.0, p50 / 16, best / 16))
    return rows


def _call_rows(calls: dict) -> list[Row]:
    rows = []
    for name, bound in (
        ("TCP, one message", 1.35),
        ("TCP, pieces", 1.35),
        ("Unix socket, one message", 1.25),
        ("Unix socket, pieces", 1.25),
        ("shared memory, in place", 1.05),
    ):
        line = calls["n2048"][name]
        rows.append(Row("A call against its kernel alone, n = 2048", name, bound, line["to_kernel_p50"], line["to_kernel_min"]))
    smallest = calls["smallest"]["Unix socket, one message"]
    rows.append(Row("The smallest call against an empty one", "Unix socket", 1.25, smallest["to_empty_call_p50"], None))
    return rows


def table(results: dict) -> str:
    rows = _echo_rows(results["echo"]) + _call_rows(results["calls"])
    for n, bound in (("128", 3.0), ("512", 3.0), ("2048", 2.5)):
        lines = results["race"][n]
        rows.append(Row("Against the Python server", f"n = {n}, TCP", bound, *_ratio(lines["python"], lines["attnd"]), True))
    # 8 heads, n = 8192, d = 64, fp32: q, k, v and the output, then packed K and V, then a thread's tiles.
    message, packed, tiles = 4 * 16, 2 * 16, 8
    beyond = results["memory"]["raised_mib"] - message
    rows.append(
        Row("Memory of a call beyond its message", "n = 8192, one thread", packed + tiles, beyond, None, unit="MiB")
    )
    return page.table(("what", "setting", "goal", "by p50", "by best", ""), [row.cells() for row in rows])
