"""What is measured for the kernel's table: contests, each a few entrants run in turns."""

from __future__ import annotations

import dataclasses

from case import Case
from machine import COMMON_KERNEL


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One thing that is timed. `library` is "attnd" or a worker; `path` is the worker's path."""

    name: str
    library: str
    case: Case
    path: str = ""
    kernel: str = ""
    bias: str = "t5"
    # Ours: as `attnd_bench kernel` takes them.
    true_keys: str = "all"
    beams: int = 1
    page_rows: int = 0


@dataclasses.dataclass(frozen=True)
class Contest:
    name: str
    title: str
    entrants: tuple[Entrant, ...]
    rounds: int = 8


def _square(n: int, batch: int = 1, heads: int = 8, threads: int = 1, dtype: str = "fp32") -> Case:
    return Case(batch, heads, n, n, 64, dtype, threads)


def _ours(case: Case) -> tuple[Entrant, ...]:
    """Our kernel with the bias, without it, the build that every machine can run, and with two threads."""
    two = dataclasses.replace(case, threads=2)
    return (
        Entrant("attnd", "attnd", case),
        Entrant("attnd, no bias", "attnd", case, bias="none"),
        Entrant(f"attnd, {COMMON_KERNEL}", "attnd", case, kernel=COMMON_KERNEL),
        Entrant("attnd, 2 threads", "attnd", two),
    )


def _peers(case: Case, library: str, *paths: str) -> tuple[Entrant, ...]:
    return tuple(Entrant(f"{path} ({library})", library, case, path=path) for path in paths)


def _by_length(n: int, *peers: Entrant, rounds: int = 8) -> Contest:
    return Contest(f"n{n}", f"8 heads, n = {n}, d = 64, fp32, one thread", _ours(_square(n)) + peers, rounds)


def _lengths() -> list[Contest]:
    sdpa = ("sdpa_causal", "sdpa_mask", "sdpa_view_chunks")
    onnx = ("ort_products", "ort_multi_head", "ort_attention")
    ggml = ("ggml_flash", "ggml_flash_fp16", "ggml_products")

    def torch(n: int, *paths: str) -> tuple[Entrant, ...]:
        return _peers(_square(n), "torch", *paths)

    def others(n: int) -> tuple[Entrant, ...]:
        return _peers(_square(n), "onnx", *onnx) + _peers(_square(n), "ggml", *ggml)

    hugging_face = tuple(
        entrant
        for worker in ("torch", "torch-as-it-comes", "torch-keeps-pages")
        for entrant in _peers(_square(2048), worker, "hf_t5", "hf_t5_sdpa", "hf_t5_bias")
    )
    return [
        _by_length(128, *torch(128, *sdpa)),
        _by_length(512, *torch(512, *sdpa, "compiled"), *others(512)),
        _by_length(1024, *torch(1024, *sdpa, "flex_t5")),
        _by_length(2048, *torch(2048, *sdpa, "flex_t5", "compiled"), *hugging_face, *others(2048)),
        _by_length(4096, *torch(4096, *sdpa, "flex_t5"), rounds=5),
        _by_length(8192, *torch(8192, *sdpa, "flex_t5"), rounds=3),
    ]


def _batches() -> list[Contest]:
    contests = []
    for n in (32, 64):
        case = _square(n, batch=64)
        peers = _peers(case, "torch", "sdpa_mask", "sdpa_view_chunks", "compiled", "flex_t5", "hf_t5", "sdpa_causal")
        entrants = (Entrant("attnd", "attnd", case), *peers, *_peers(case, "onnx", "ort_attention"))
        contests.append(Contest(f"batch64-n{n}", f"batch 64, 8 heads, n = {n}, d = 64, fp32, one thread", entrants))
    entrants = tuple(
        Entrant(f"attnd, batch {batch}, n = {n}", "attnd", _square(n, batch=batch))
        for n, batch in ((32, 16), (32, 2048), (64, 8), (64, 1024))
    )
    title = "8 heads, d = 64, fp32, one thread: tensors that stay in a cache, and tensors from memory"
    contests.append(Contest("short", title, entrants))
    return contests


def _half() -> Contest:
    case = _square(2048, dtype="bf16")
    entrants = (
        Entrant("attnd, fp32", "attnd", _square(2048)),
        Entrant("attnd", "attnd", case),
        *_peers(case, "torch", "sdpa_causal", "sdpa_mask", "sdpa_view_chunks"),
    )
    return Contest("bf16", "8 heads, n = 2048, d = 64, bf16, one thread", entrants)


def _one_head() -> Contest:
    entrants = []
    for n in (1024, 2048, 4096):
        entrants.append(Entrant(f"attnd, n = {n}", "attnd", _square(n, heads=1)))
        entrants.append(Entrant(f"attnd, n = {n}, 2 threads", "attnd", _square(n, heads=1, threads=2)))
    return Contest("one-head", "1 head, d = 64, fp32", tuple(entrants))


def _decode() -> list[Contest]:
    case = Case(32, 8, 1, 4096, 64, threads=2)
    title = "batch 32, 8 heads, 1 query, 4096 keys, d = 64, two threads"
    half = {dtype: dataclasses.replace(case, dtype=dtype) for dtype in ("fp16", "bf16")}
    fp32 = (
        Entrant("attnd", "attnd", case),
        Entrant("attnd, pages of 64 rows", "attnd", case, page_rows=64),
        *_peers(case, "torch", "sdpa_mask", "sdpa_plain", "flex_t5"),
        *_peers(case, "onnx", "ort_attention"),
    )
    halves = (
        Entrant("attnd, fp32", "attnd", case),
        Entrant("attnd", "attnd", half["fp16"]),
        Entrant("attnd, bf16", "attnd", half["bf16"]),
        Entrant("attnd, pages of 64 rows", "attnd", half["fp16"], page_rows=64),
        *_peers(half["fp16"], "torch", "sdpa_mask", "sdpa_plain", "flex_t5"),
        *_peers(half["fp16"], "ggml", "ggml_flash_fp16"),
    )
    return [
        Contest("decode", f"{title}, fp32", fp32),
        Contest("decode-half", f"{title}, fp16 but where it says otherwise", halves),
        _beams(),
    ]


def _beams() -> Contest:
    """Rows that share a source's keys and values, which are read once for all."""
    case = Case(32, 8, 1, 2048, 64, threads=2)
    entrants = (
        Entrant("attnd, 1 row", "attnd", case),
        Entrant("attnd, 4 rows", "attnd", dataclasses.replace(case, batch=128), beams=4),
        Entrant("attnd, 8 rows", "attnd", dataclasses.replace(case, batch=256), beams=8),
        Entrant("attnd, 4 rows, pages of 64 rows", "attnd", dataclasses.replace(case, batch=128), beams=4, page_rows=64),
    )
    return Contest("beams", "32 sources, 8 heads, 2048 keys, d = 64, fp32, two threads: rows of each source", entrants)


def _masks() -> Contest:
    case = _square(2048)
    entrants = (
        Entrant("attnd", "attnd", case),
        Entrant("attnd, a quarter padded on the left, key_starts", "attnd", case, true_keys="start"),
        Entrant("attnd, a quarter padded on the left, key_bits", "attnd", case, true_keys="bits"),
        Entrant("attnd, every fourth key hidden, key_bits", "attnd", case, true_keys="holes"),
    )
    return Contest("masks", "8 heads, n = 2048, d = 64, fp32, one thread: true keys", entrants)


def _windows() -> Contest:
    """Time grows with the queries alone, where the window is the same."""
    case = dataclasses.replace(_square(4096), window=512)
    entrants = (
        Entrant("attnd", "attnd", case),
        Entrant("attnd, no bias", "attnd", case, bias="none"),
        Entrant("attnd, n = 8192", "attnd", dataclasses.replace(case, queries=8192, keys=8192)),
        Entrant("attnd, n = 16384", "attnd", dataclasses.replace(case, queries=16384, keys=16384)),
        Entrant("attnd, every key before", "attnd", _square(4096)),
        *_peers(case, "torch", "sdpa_mask", "flex_t5"),
    )
    return Contest("windows", "8 heads, n = 4096, a window of 512 keys, d = 64, fp32, one thread", entrants, rounds=5)


def _growth() -> Contest:
    entrants = tuple(Entrant(f"attnd, n = {n}", "attnd", _square(n)) for n in (2048, 4096, 8192))
    return Contest("growth", "8 heads, d = 64, fp32, one thread", entrants, rounds=4)


def _memory() -> Contest:
    """On small pages: huge ones would round each tensor up to 2 MiB, the small base's most of all."""
    entrants = tuple(
        Entrant(
            f"attnd, n = {n}, threads = {threads}",
            "attnd",
            dataclasses.replace(_square(n, heads=1, threads=threads), pages="small"),
        )
        for n in (16, 8192, 65536)
        for threads in (1, 2)
    )
    return Contest("memory", "1 head, d = 64, fp32: peak memory", entrants, rounds=1)


def contests() -> list[Contest]:
    return [*_lengths(), *_batches(), _half(), _one_head(), *_decode(), _masks(), _windows(), _growth(), _memory()]
