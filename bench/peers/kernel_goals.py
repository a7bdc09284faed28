"""The kernel's goals: which ratio of which measurements, and what it should be."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

from contest import Measurement, Round
from machine import COMMON_KERNEL
from results import NotMeasured

Results = dict[str, dict[str, Measurement]]
# The figure by best times, and by medians; None where there is no such figure. The goal is for the first that there is.
Figure = tuple[float | None, float | None]


@dataclasses.dataclass(frozen=True)
class Goal:
    what: str
    setting: str
    figure: Callable[[Results], Figure]
    bound: float
    at_least: bool = True
    unit: str = "x"  # "x": a ratio, "%": a fraction, "MiB"

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


def _get(results: Results, contest: str, name: str) -> Measurement:
    measurement = results.get(contest, {}).get(name)
    if measurement is None:
        raise NotMeasured("not run")
    if measurement.error:
        raise NotMeasured(f"{name}: {measurement.error}")
    return measurement


def _ratio(contest: str, slow: str | tuple[str, ...], fast: str = "attnd") -> Callable[[Results], Figure]:
    """Time of `slow` (of several: their sum) over the time of `fast`."""
    names = (slow,) if isinstance(slow, str) else slow

    def figure(results: Results) -> Figure:
        parts = [_get(results, contest, name) for name in names]
        base = _get(results, contest, fast)
        best = sum(part.best_ms for part in parts) / base.best_ms
        return best, sum(part.median_ms for part in parts) / base.median_ms

    return figure


def _against_fastest(contest: str, suffix: str) -> Callable[[Results], Figure]:
    """Time of the fastest entrant whose name ends in `suffix`, with the bias, over ours."""

    def figure(results: Results) -> Figure:
        ours = _get(results, contest, "attnd")
        rivals = [
            m
            for name, m in results[contest].items()
            if name.endswith(suffix) and not m.error and not name.startswith("sdpa_causal")
        ]
        if not rivals:
            raise NotMeasured("no peer ran")
        return (
            min(m.best_ms for m in rivals) / ours.best_ms,
            min(m.median_ms for m in rivals) / ours.median_ms,
        )

    return figure


def _fraction(contest: str, name: str) -> Callable[[Results], Figure]:
    def figure(results: Results) -> Figure:
        extras = _get(results, contest, name).extras
        return extras["fraction_of_peak"], extras["median_fraction_of_peak"]

    return figure


def _read_bandwidth(contest: str, name: str, megabytes: float) -> Callable[[Results], Figure]:
    """Bytes of K and V over the time, as a fraction of the read bandwidth (GB/s).

    By best: the best time against the best bandwidth. By median: each round's median time against that round's median
    bandwidth, then the median of these, for other guests of the host move the bandwidth from round to round.
    """

    def fraction(milliseconds: float, bandwidth: float) -> float:
        return megabytes / milliseconds / bandwidth

    def figure(results: Results) -> Figure:
        ours = _get(results, contest, name)
        by_round = [fraction(one.median_ms, one.read_bandwidth) for one in ours.rounds]
        return fraction(ours.best_ms, ours.extras["read_bandwidth"]), statistics.median(by_round)

    return figure


def _ratio_by_round(contest: str, slow: str, fast: str = "attnd") -> Callable[[Results], Figure]:
    """Each round's ratio of medians, then the median of these: what moves both in a round moves no ratio."""

    def ratio(above: Round, below: Round) -> float:
        return above.median_ms / below.median_ms

    def figure(results: Results) -> Figure:
        above, below = _get(results, contest, slow), _get(results, contest, fast)
        return None, statistics.median(map(ratio, above.rounds, below.rounds))

    return figure


def _memory_per_thread(n: int, threads: int) -> Callable[[Results], Figure]:
    """Peak memory beyond that of a call of 16 rows, the four tensors and packed K and V (1 head, d = 64), per thread."""
    mebibytes = 6 * (n - 16) * 64 * 4 / 2**20

    def figure(results: Results) -> Figure:
        used = _get(results, "memory", f"attnd, n = {n}, threads = {threads}").extras["peak_rss_mb"]
        base = _get(results, "memory", f"attnd, n = 16, threads = {threads}").extras["peak_rss_mb"]
        return max(0.0, used - base - mebibytes) / threads, None

    return figure


LENGTHS = (1024, 2048, 4096, 8192)


def _peak_goals() -> list[Goal]:
    widest = {128: 0.60, 512: 0.78, 2048: 0.85, 8192: 0.85}
    avx2 = {128: 0.55, 512: 0.70, 2048: 0.78, 8192: 0.78}
    goals = [
        Goal("Fraction of FMA peak, widest kernel", f"n = {n}", _fraction(f"n{n}", "attnd"), bound, unit="%")
        for n, bound in widest.items()
    ]
    return goals + [
        Goal(
            f"Fraction of FMA peak, {COMMON_KERNEL} kernel",
            f"n = {n}",
            _fraction(f"n{n}", f"attnd, {COMMON_KERNEL}"),
            bound,
            unit="%",
        )
        for n, bound in avx2.items()
    ]


def _torch_goals() -> list[Goal]:
    goals = [
        Goal(
            "Against PyTorch `is_causal`, which has no bias",
            f"n = {n}",
            _ratio(f"n{n}", "sdpa_causal (torch)"),
            2.0 if n == 512 else 1.45,
        )
        for n in (512, *LENGTHS)
    ]
    for what, path, bound in (
        ("Against PyTorch SDPA, T5 bias in a ready mask", "sdpa_mask (torch)", 2.7),
        ("Against FlexAttention with the T5 bias", "flex_t5 (torch)", 2.2),
    ):
        goals += [Goal(what, f"n = {n}", _ratio(f"n{n}", path), bound) for n in LENGTHS]
    for malloc, worker, bound in (("as it comes", "torch-as-it-comes", 20.0), ("keeping its pages", "torch-keeps-pages", 8.0)):
        parts = (f"hf_t5 ({worker})", f"hf_t5_bias ({worker})")
        what = "Against Hugging Face's T5 code, making its bias included"
        goals.append(Goal(what, f"n = 2048, malloc {malloc}", _ratio("n2048", parts), bound))
    parts = ("hf_t5_sdpa (torch-keeps-pages)", "hf_t5_bias (torch-keeps-pages)")
    what = "Against Hugging Face's `sdpa` (5.15 or newer), making its bias included"
    goals.append(Goal(what, "n = 2048, malloc keeping its pages", _ratio("n2048", parts), 2.7))
    for n in (32, 64):
        figure = _against_fastest(f"batch64-n{n}", "(torch)")
        goals.append(Goal("Against PyTorch's best with the bias", f"batch 64, n = {n}", figure, 2.0))
    return goals


def _own_goals() -> list[Goal]:
    two = [
        Goal("Two threads over one", f"8 heads, n = {n}", _ratio(f"n{n}", "attnd", "attnd, 2 threads"), 1.9)
        for n in LENGTHS
    ]
    two += [
        Goal(
            "Two threads over one",
            f"1 head, n = {n}",
            _ratio("one-head", f"attnd, n = {n}", f"attnd, n = {n}, 2 threads"),
            1.9,
        )
        for n in (1024, 2048, 4096)
    ]
    bias = [
        Goal("Bias against none", f"n = {n}", _ratio(f"n{n}", "attnd", "attnd, no bias"), 1.02, at_least=False)
        for n in LENGTHS
    ]
    growth = [
        Goal(
            "time(2n) / time(n)",
            f"n = {n}",
            _ratio("growth", f"attnd, n = {2 * n}", f"attnd, n = {n}"),
            4.1,
            at_least=False,
        )
        for n in (2048, 4096)
    ]
    memory = [
        Goal(
            "Memory a thread beyond tensors and packed K, V",
            f"n = {n}, {threads} thread{'s' if threads > 1 else ''}",
            _memory_per_thread(n, threads),
            8,
            at_least=False,
            unit="MiB",
        )
        for n in (8192, 65536)
        for threads in (1, 2)
    ]
    return [
        *two,
        *bias,
        Goal("bf16 against our fp32", "n = 2048", _ratio("bf16", "attnd, fp32"), 1.6),
        *_decode_goals(),
        *_short_goals(),
        *_window_goals(),
        *memory,
        *growth,
    ]


def _decode_goals() -> list[Goal]:
    setting = "32 x 1 query x 4096 keys, 2 threads"
    megabytes = 2 * 32 * 8 * 4096 * 64 * 4 / 1e6  # of K and V in fp32
    pages = "attnd, pages of 64 rows"
    bandwidth = [
        Goal(f"Decode{what}: fraction of the read bandwidth", setting, _read_bandwidth(*where), 0.95, unit="%")
        for what, where in (
            ("", ("decode", "attnd", megabytes)),
            (" in pages", ("decode", pages, megabytes)),
            (", fp16", ("decode-half", "attnd", megabytes / 2)),
            (", bf16", ("decode-half", "attnd, bf16", megabytes / 2)),
        )
    ]

    def by_round(what: str, contest: str, slow: str, fast: str, bound: float) -> Goal:
        return Goal(f"{what}, median of interleaved ratios", setting, _ratio_by_round(contest, slow, fast), bound)

    def rows(n: str) -> Goal:
        figure = _ratio("beams", f"attnd, {n}", "attnd, 1 row")
        return Goal(f"Decode of {n} that share their keys, against 1", "32 x 2048 keys", figure, 1.25, at_least=False)

    return [
        *bandwidth,
        by_round("Decode against ONNX Runtime", "decode", "ort_attention (onnx)", "attnd", 0.98),
        by_round("Decode against FlexAttention", "decode", "flex_t5 (torch)", "attnd", 1.0),
        by_round("Decode, fp16 against our fp32", "decode-half", "attnd, fp32", "attnd", 1.85),
        by_round("Decode, bf16 against our fp32", "decode-half", "attnd, fp32", "attnd, bf16", 1.85),
        by_round("Decode, fp16, against llama.cpp's ggml", "decode-half", "ggml_flash_fp16 (ggml)", "attnd", 1.0),
        by_round("Decode, fp16, against PyTorch without a bias", "decode-half", "sdpa_plain (torch)", "attnd", 1.0),
        by_round("Decode, fp16, against FlexAttention", "decode-half", "flex_t5 (torch)", "attnd", 1.0),
        rows("4 rows"),
        rows("8 rows"),
        rows("4 rows, pages of 64 rows"),
    ]


def _short_goals() -> list[Goal]:
    goals = []
    for n, bound in ((32, 0.45), (64, 0.57)):
        what = "Short sequences, fraction of FMA peak"
        goals.append(Goal(what, f"batch 64, n = {n}", _fraction(f"batch64-n{n}", "attnd"), bound, unit="%"))
        figure = _ratio_by_round(f"batch64-n{n}", "ort_attention (onnx)")
        goals.append(Goal("Short sequences against ONNX Runtime", f"batch 64, n = {n}", figure, 2.0))
    return goals


def _window_goals() -> list[Goal]:
    longer = [
        Goal(
            f"A window of 512 keys, time(n = {n}) / time(n = 4096)",
            "8 heads",
            _ratio("windows", f"attnd, n = {n}"),
            1.05 * n / 4096,
            at_least=False,
        )
        for n in (8192, 16384)
    ]
    bias = _ratio("windows", "attnd", "attnd, no bias")
    return [
        Goal("A window of 512 keys, bias against none", "n = 4096", bias, 1.02, at_least=False),
        *longer,
        Goal("A window of 512 keys against FlexAttention", "n = 4096", _ratio("windows", "flex_t5 (torch)"), 1.0),
    ]


def goals() -> list[Goal]:
    return [*_peak_goals(), *_torch_goals(), *_own_goals()]
