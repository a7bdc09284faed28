"""What is measured for the kernel's table: contests, each a few entrants run in turns."""

from __future__ import annotations

import dataclasses

from case import Case


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One thing that is timed. `library` is "attnd" or a worker; `path` is the worker's path."""

    name: str
    library: str
    case: Case
    path: str = ""
    kernel: str = ""
    bias: str = "t5"
    true_keys: str = "all"


@dataclasses.dataclass(frozen=True)
class Contest:
    name: str
    title: str
    entrants: tuple[Entrant, ...]
    rounds: int = 8


def _square(n: int, batch: int = 1, heads: int = 8, threads: int = 1, dtype: str = "fp32") -> Case:
    return Case(batch, heads, n, n, 64, dtype, threads)


def _ours(case: Case) -> tuple[Entrant, ...]:
    """Our kernel with the bias, without it, its AVX2 build, and with two threads."""
    two = dataclasses.replace(case, threads=2)
    return (
        Entrant("attnd", "attnd", case),
        Entrant("attnd, no bias", "attnd", case, bias="none"),
        Entrant("attnd, x86-64-v3", "attnd", case, kernel="x86-64-v3"),
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
        for entrant in _peers(_square(2048), worker, "hf_t5", "hf_t5_bias")
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


def _decode() -> Contest:
    case = Case(32, 8, 1, 4096, 64, threads=2)
    peers = _peers(case, "torch", "sdpa_mask", "sdpa_plain") + _peers(case, "onnx", "ort_attention")
    entrants = (Entrant("attnd", "attnd", case), *peers, *_peers(case, "ggml", "ggml_flash_fp16"))
    return Contest("decode", "batch 32, 8 heads, 1 query, 4096 keys, d = 64, fp32, two threads", entrants)


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
    return [*_lengths(), *_batches(), _half(), _one_head(), _decode(), _masks(), _windows(), _growth(), _memory()]
