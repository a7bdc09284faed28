"""Random tensors of attention calls."""

from __future__ import annotations

from typing import Any

import numpy as np

# Every way to a server: which of its targets, and the client's options.
DOORS: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("unix", {}),
    "local, all sent": ("unix", {"shared_memory": False}),
    "shared_memory": ("unix", {"local_calls": False}),
    "grpc": ("unix", {"local_calls": False, "shared_memory": False}),
    "tcp": ("tcp", {}),
}


def tensors(
    heads: int = 8,
    queries: int = 16,
    keys: int | None = None,
    *,
    batch: int = 1,
    kv_heads: int | None = None,
    dim: int = 64,
    value_dim: int | None = None,
    dtype: Any = np.float32,
    seed: int = 0,
) -> tuple[Any, Any, Any]:
    """q, k and v as [batch, heads, sequence, dim]."""
    random = np.random.default_rng(seed)
    keys = queries if keys is None else keys
    kv_heads = heads if kv_heads is None else kv_heads
    shapes = [(batch, heads, queries, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, value_dim or dim)]
    q, k, v = ((random.standard_normal(shape) / dim**0.25).astype(dtype) for shape in shapes)
    return q, k, v


def same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays have the same dtype, shape and bytes."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    )
