"""The wire's section of docs/performance.md, from measurements. A line that failed is {"error": reason}."""

from __future__ import annotations

import page
import wire_goals
from results import not_measured


def _row(head: list[str], cells: list[str] | None, width: int, line: dict) -> list[str]:
    """The row's name and its cells, or the reason in the first of them."""
    if cells is None:
        cells = [not_measured(line["error"])]
    return [*head, *cells, *["–"] * (width - len(cells))]


def echo_table(results: dict[str, dict[str, dict[str, dict]]]) -> str:
    rows = []
    for size, transports in results.items():
        for transport, entrants in transports.items():
            for name, line in entrants.items():
                cells = None
                if "error" not in line:
                    rate = 4 * (int(size) << 20) / line["p50_ms"] / 1e6
                    times = [f"{line['p50_ms']:.3f}", f"{line['min_ms']:.3f}", f"{rate:.2f}"]
                    cells = [*times, f"huge {line['huge_fraction']:.0%}"]
                rows.append(_row([f"{size} MiB", transport, name], cells, 4, line))
    return page.table(("tensor", "transport", "", "p50 ms", "min ms", "GB/s at p50", "pages of what is sent"), rows)


def calls_table(results: dict[str, dict[str, dict]]) -> str:
    rows = []
    for setting, lines in results.items():
        for name, line in lines.items():
            cells, what = None, setting
            if "error" not in line:
                what = f"{line['shape']} {line['dtype']}"
                cpu = f"{line['server_cpu_ms']:.2f} / {line['client_cpu_ms']:.2f} / {line['kernel_cpu_ms']:.2f}"
                cells = [f"{line[key]:.3f}" for key in ("p50_ms", "min_ms", "p99_ms", "kernel_p50_ms", "kernel_min_ms")]
                cells += [cpu, f"{line['empty_call_p50_ms']:.3f}", f"huge {line['huge_fraction']:.0%}"]
                cells.append("disturbed" if line["disturbed"] else "")
            rows.append(_row([what, name], cells, 9, line))
    header = ("shape", "through", "p50 ms", "min", "p99", "kernel p50", "kernel min", "CPU ms: server / client / kernel")
    return page.table((*header, "empty call p50", "pages of K and V", ""), rows)


def race_table(results: dict[str, dict[str, dict]]) -> str:
    def times(line: dict, *keys: str) -> str:
        return not_measured(line["error"]) if "error" in line else " / ".join(f"{line[key]:.3f}" for key in keys)

    rows = [
        [n, times(lines["attnd"], "p50_ms", "min_ms"), times(lines["python"], "p50_ms", "min_ms", "compute_ms")]
        for n, lines in results.items()
    ]
    return page.table(("n", "attnd ms: p50 / min", "Python ms: p50 / min / compute"), rows)


def section(facts: dict[str, str], results: dict[str, dict]) -> str:
    return "\n\n".join(
        [
            page.table(("", ""), facts.items()),
            "### Goals of the wire",
            wire_goals.table(results),
            "### The wire without arithmetic",
            echo_table(results["echo"]),
            "### Calls",
            calls_table(results["calls"]),
            "### Against a Python server around PyTorch",
            race_table(results["race"]),
        ]
    )
