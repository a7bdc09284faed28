"""The curve of docs/transformers.md: speed-up by length, batch 1, from the results of hf_bench.py."""

from __future__ import annotations

import pathlib
from typing import Any

# Colours that stay apart for the colour-blind, in the order of the lines below.
LINES = (
    ("free", "no attention at all", "#888888", "--"),
    ("local", "attnd, local socket", "#0072b2", "-"),
    ("tcp", "attnd, TCP", "#d55e00", "-"),
    ("ctranslate2", "CTranslate2", "#009e73", ":"),
)


def draw(results: dict[str, Any], path: pathlib.Path) -> None:
    """Writes the picture; the values are those of the table."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "attnd", "svg.fonttype": "none", "font.size": 11})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.2))
    cases = {int(name.split("x")[1]): entry for name, entry in results["cases"].items() if name.startswith("1x")}
    for way, title, colour, style in LINES:
        points = [
            (tokens, min(entry["eager"]["min_ms"], entry["sdpa"]["min_ms"]) / entry[way]["min_ms"])
            for tokens, entry in sorted(cases.items())
            if "min_ms" in entry.get(way, {})
        ]
        if points:
            axes.plot(*zip(*points), style, color=colour, marker="o", markersize=4, label=title)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(cases), labels=[str(tokens) for tokens in sorted(cases)])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens, batch 1")
    axes.set_ylabel("speed-up against the faster of eager and sdpa")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
