"""The kernel's section of docs/performance.md, from measurements."""

from __future__ import annotations

import page
from contest import Measurement
from kernel_goals import Goal, Missing, Results
from kernel_plan import Contest


def _figure(value: float, unit: str) -> str:
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
    except Missing as missing:
        return [goal.what, goal.setting, _bound(goal), "–", "–", f"not measured ({missing})"]
    by_median = "–" if median is None else _figure(median, goal.unit)
    mark = "reached" if goal.reached(best) else "**not reached**"
    return [goal.what, goal.setting, _bound(goal), _figure(best, goal.unit), by_median, mark]


def goal_table(goals: list[Goal], results: Results) -> str:
    header = ("what", "setting", "goal", "by best", "by median", "")
    return page.table(header, (_goal_row(goal, results) for goal in goals))


def _timing_row(name: str, m: Measurement, ours: Measurement | None) -> list[str]:
    if m.error:
        return [name, "–", "–", "–", "–", "–", m.error]
    ratio = f"{m.best_ms / ours.best_ms:.2f}" if ours and not ours.error else "–"
    notes = [m.note] if m.note else []
    if "fraction_of_peak" in m.extras:
        notes.append(f"{m.extras['fraction_of_peak'] * 100:.0f}% of {m.extras['peak_gflops']:.0f} GFLOP/s")
    error = f"{m.extras['max_error']:.1e}" if "max_error" in m.extras else "–"
    return [name, f"{m.best_ms:.3f}", f"{m.median_ms:.3f}", ratio, str(m.reps), error, ", ".join(notes)]


def timing_table(contest: Contest, measured: dict[str, Measurement]) -> str:
    header = ("path", "best ms", "median ms", "of ours", "times", "max error", "")
    ours = measured.get("attnd")
    return page.table(header, (_timing_row(name, m, ours) for name, m in measured.items()))


def section(facts: dict[str, str], goals: list[Goal], contests: list[Contest], results: Results) -> str:
    parts = [page.table(("", ""), ([f"{name}", value] for name, value in facts.items()))]
    parts += ["### Goals", goal_table(goals, results), "### Timings"]
    for contest in contests:
        if contest.name in results:
            parts += [f"#### {contest.title[0].upper()}{contest.title[1:]}", timing_table(contest, results[contest.name])]
    return "\n\n".join(parts)
