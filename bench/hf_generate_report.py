"""The tables of docs/transformers.md about generate(), from the results of hf_generate.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import page
from results import NotMeasured, figure, not_measured

# In this order they take turns.
WAYS = ("eager", "sdpa", "local", "tcp", "free", "ctranslate2 float32", "ctranslate2 int8")
TITLES = {
    "eager": "eager",
    "sdpa": "sdpa",
    "local": "attnd",
    "tcp": "attnd, TCP",
    "free": "attention at no cost",
    "ctranslate2 float32": "CTranslate2",
    "ctranslate2 int8": "CTranslate2, int8",
}
TIMES = ("whole_ms", "decode_ms", "first_ms", "step_ms")


def best(results: dict[str, Any], case: str, way: str, time: str) -> float:
    return figure(results, "cases", case, way, time, "min")


def speedup(results: dict[str, Any], case: str, way: str, time: str) -> float:
    """Against the faster of transformers' own."""
    return min(best(results, case, own, time) for own in ("eager", "sdpa")) / best(results, case, way, time)


def goals(results: dict[str, Any]) -> Iterator[list[str]]:
    def row(what: str, bound: float, at_least: bool, measured: Callable[[], float]) -> list[str]:
        goal = f"{'≥' if at_least else '≤'} {bound:g}×"
        try:
            found = measured()
        except NotMeasured as missing:
            return [what, goal, "–", not_measured(missing)]
        reached = found >= bound if at_least else found <= bound
        return [what, goal, f"{found:.3f}×", "reached" if reached else "**not reached**"]

    def faster(what: str, bound: float, case: str, time: str, way: str = "local") -> list[str]:
        return row(what, bound, True, lambda: speedup(results, case, way, time))

    def against_ctranslate2() -> float:
        peer = best(results, "beams-2048", "ctranslate2 float32", "whole_ms")
        return peer / best(results, "beams-2048", "local", "whole_ms")

    yield faster("greedy, 1 × 512: tokens a second, of the faster of eager and sdpa", 0.95, "greedy", "decode_ms")
    yield faster("the same by TCP", 0.75, "greedy", "decode_ms", "tcp")
    yield faster("4 beams, 4 × 2048: decode, against the faster of them", 6, "beams-2048", "decode_ms")
    yield faster("the same: the whole call with its encoder", 4, "beams-2048", "whole_ms")
    yield faster("4 beams, 8 × 512: decode", 2.5, "beams-512", "decode_ms")
    yield row("4 beams, 4 × 2048: the whole call, against CTranslate2 in fp32", 1.2, True, against_ctranslate2)
    yield row("4 beams, 4 × 2048: memory for cross attention, of eager's", 0.3, False, lambda: memory_ratio(results))
    yield tokens_row(results)


def memory_ratio(results: dict[str, Any]) -> float:
    """What the server holds of its budget for the sessions of cross attention, and what the client's cache keeps."""
    held = figure(results, "memory", "local", "reserved_mib") + figure(results, "memory", "local", "cache_mib")
    return held / figure(results, "memory", "eager", "cache_mib")


def tokens_row(results: dict[str, Any]) -> list[str]:
    same = asked = 0
    for case in results["cases"].values():
        for way in ("local", "tcp"):
            if "same_tokens" in case.get(way, {}):
                same, asked = same + case[way]["same_tokens"], asked + case["batch"]
    reached = "–" if asked == 0 else "reached" if same == asked else "**not reached**"
    return ["sequences that are eager's, token for token", "all", f"{same} of {asked}", reached]


def case_rows(case: dict[str, Any]) -> Iterator[list[str]]:
    for way in WAYS:
        if way not in case:
            continue
        entry = case[way]
        if "error" in entry:
            yield [TITLES[way], not_measured(entry["error"]), *["–"] * (len(TIMES) + 1)]
            continue
        cells = [f"{entry[time]['min']:.1f} / {entry[time]['p50']:.1f}" if time in entry else "–" for time in TIMES]
        made = case["batch"] * case["new"]
        rate = f"{made / entry['decode_ms']['min'] * 1e3:.1f}" if "decode_ms" in entry else "–"
        same = f"{entry['same_tokens']} of {case['batch']}" if "same_tokens" in entry else "–"
        yield [TITLES[way], *cells, rate, same]


def case_section(case: dict[str, Any]) -> str:
    beams = "Greedy" if case["beams"] == 1 else f"{case['beams']} beams"
    header = ("", "whole call", "decode", "first step", "a step", "tokens a second", "sequences as eager's")
    title = f"{beams}, {case['batch']} × {case['tokens']} tokens, {case['new']} new:"
    return title + "\n\n" + page.table(header, case_rows(case))


def memory_rows(results: dict[str, Any]) -> Iterator[list[str]]:
    keys = ("cache_mib", "used_mib", "reserved_mib", "peak_mib")
    for way, entry in results["memory"].items():
        if "error" in entry:
            yield [TITLES[way], not_measured(entry["error"]), *["–"] * (len(keys) - 1)]
        else:
            yield [TITLES[way], *(f"{entry[key]:.1f} MiB" if key in entry else "–" for key in keys)]


def section(results: dict[str, Any]) -> str:
    parts = [
        page.table(("", ""), results["machine"].items()),
        "Milliseconds, best / median. The decode is all of a call after its encoder, and the first step contains the "
        'projections of the sources; "a step" is the median of a call\'s others. Tokens a second are those of the best '
        'decode, a beam\'s counted once. "Attention at no cost" computes something else; it is the floor.',
        *(case_section(case) for case in results["cases"].values()),
    ]
    if results["memory"]:
        header = ("", "cache in the client", "server's sessions use", "and reserve", "client's peak")
        parts += [
            "Memory for cross attention, 4 beams, 4 × 2048. The peak is that of the client's whole process during the "
            "decode, above what it had before.",
            page.table(header, memory_rows(results)),
        ]
    return "\n\n".join([*parts, "### Goals of generate", page.table(("what", "goal", "by best", ""), goals(results))])
