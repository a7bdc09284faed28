"""One attention problem: its sizes, and inputs made from a seed."""

from __future__ import annotations

import dataclasses

import numpy as np

import pages
import t5_bias


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes of a causal attention call, and where its tensors lie; queries are the last rows of the keys."""

    batch: int
    heads: int
    queries: int
    keys: int
    dim: int
    dtype: str = "fp32"
    threads: int = 1
    pages: str = "huge"  # or "small": see pages.py
    window: int = 0  # keys that a query sees, its own and those before; 0: all of them

    def shape(self) -> str:
        """As `attnd_bench kernel --shape` takes it."""
        return f"{self.batch},{self.heads},{self.keys},{self.dim}"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Tensors of a case, [batch, heads, rows, dim] float32, already rounded to the case's dtype, on the case's pages."""

    case: Case
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    table: np.ndarray  # [num_buckets, heads]

    def offset_bias(self) -> np.ndarray:
        """[heads, keys]: the bias at offset 0, 1, 2, ...; -inf beyond the window."""
        bias = t5_bias.by_offset(self.table, self.case.keys)
        if self.case.window:
            bias[:, self.case.window :] = -np.inf
        return self.place(bias)

    def mask(self) -> np.ndarray:
        """[heads, queries, keys]: the bias, -inf where the key comes after the query."""
        return self.place(t5_bias.causal_mask_view(self.offset_bias(), self.case.queries, self.case.keys))

    def place(self, values: np.ndarray) -> np.ndarray:
        """A copy in row-major order on the case's pages."""
        return pages.copy(values, self.case.pages)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | type = np.float32) -> np.ndarray:
        """Memory on the case's pages, for outputs."""
        return pages.empty(shape, dtype, self.case.pages)


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values rounded to what `dtype` can hold (to nearest, ties to even)."""
    if dtype == "fp32":
        return values
    if dtype == "fp16":
        return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


def make_inputs(case: Case, seed: int = 1) -> Inputs:
    rng = np.random.default_rng(seed)

    def normal(rows: int, deviation: float) -> np.ndarray:
        shape = (case.batch, case.heads, rows, case.dim)
        values = round_to(rng.standard_normal(shape, np.float32) * np.float32(deviation), case.dtype)
        return pages.copy(values, case.pages)

    table = rng.standard_normal((t5_bias.NUM_BUCKETS, case.heads), np.float32) * 2
    q = normal(case.queries, 0.5)
    k = normal(case.keys, 0.5)
    return Inputs(case, q, k, normal(case.keys, 1.0), table)
