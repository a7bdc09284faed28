"""Makes the kernel's section of docs/performance.md from measurements."""

from __future__ import annotations

import page
from contest import Measurement
from kernel_goals import Goal, Results
from kernel_plan import Contest
from results import NotMeasured, not_measured


PAGES = (
    "\"Pages\" is how much of K and V lies on huge pages, as each entrant counted it. PyTorch allocates outputs and "
    "temporaries itself: `torch` asks for huge pages too (`THP_MEM_ALLOC_ENABLE=1`), `torch-as-it-comes` and "
    "`torch-keeps-pages` (glibc's malloc keeps what is freed) do not."
)

# If the entrants' shares of huge pages differ by more than this, their times do not compare.
SAME_PAGES = 0.1


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "%":
        return f"{value * 100:.1f}%"
    return f"{value:.2f}×" if unit == "x" else f"{value:.1f} {unit}"


def _bound(goal: Goal) -> str:
    sign = "≥" if goal.at_least else "≤"
    if goal.unit == "%":
        return f"{sign} {goal.bound * 100:g}%"
    return f"{sign} {goal.bound:g}×" if goal.unit == "x" else f"{sign} {goal.bound:g} {goal.unit}"


def _goal_row(goal: Goal, results: Results) -> list[str]:
    try:
        best, median = goal.figure(results)
    except NotMeasured as missing:
        return [goal.what, goal.setting, _bound(goal), "–", "–", not_measured(missing)]
    mark = "reached" if goal.reached(median if best is None else best) else "**not reached**"
    return [goal.what, goal.setting, _bound(goal), _figure(best, goal.unit), _figure(median, goal.unit), mark]


def goal_table(goals: list[Goal], results: Results) -> str:
    header = ("what", "setting", "goal", "by best", "by median", "")
    return page.table(header, (_goal_row(goal, results) for goal in goals))


def _timing_row(name: str, m: Measurement, ours: Measurement | None) -> list[str]:
    if m.error:
        return [name, "–", "–", "–", "–", "–", "–", not_measured(m.error)]
    ratio = f"{m.best_ms / ours.best_ms:.2f}" if ours and not ours.error else "–"
    notes = [m.note] if m.note else []
    if "fraction_of_peak" in m.extras:
        notes.append(f"{m.extras['fraction_of_peak'] * 100:.0f}% of {m.extras['peak_gflops']:.0f} GFLOP/s")
    error = f"{m.extras['max_error']:.1e}" if "max_error" in m.extras else "–"
    pages = f"huge {m.huge_fraction:.0%}"
    return [name, f"{m.best_ms:.3f}", f"{m.median_ms:.3f}", ratio, str(m.reps), error, pages, ", ".join(notes)]


def unequal_pages(measured: dict[str, Measurement]) -> str:
    """Returns a warning if the entrants' K and V are not on the same kind of pages; otherwise an empty string."""
    shares = {name: m.huge_fraction for name, m in measured.items() if not m.error}
    if not shares or max(shares.values()) - min(shares.values()) <= SAME_PAGES:
        return ""
    return "**Unequal pages**, so these times do not compare: " + ", ".join(
        f"{name} huge {share:.0%}" for name, share in shares.items()
    )


def timing_table(measured: dict[str, Measurement]) -> str:
    header = ("path", "best ms", "median ms", "of ours", "times", "max error", "pages", "")
    ours = measured.get("attnd")
    table = page.table(header, (_timing_row(name, m, ours) for name, m in measured.items()))
    warning = unequal_pages(measured)
    return f"{warning}\n\n{table}" if warning else table


def section(facts: dict[str, str], goals: list[Goal], contests: list[Contest], results: Results) -> str:
    parts = [page.table(("", ""), ([f"{name}", value] for name, value in facts.items()))]
    parts += ["### Goals", goal_table(goals, results), "### Timings", PAGES]
    for contest in contests:
        if contest.name in results:
            parts += [f"#### {contest.title[0].upper()}{contest.title[1:]}", timing_table(results[contest.name])]
    return "\n\n".join(parts)
