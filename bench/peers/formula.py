"""The attention formula in float64, and the check that a peer must pass before its time counts."""

from __future__ import annotations

import numpy as np

from case import Inputs

# Unit roundoff of the number format in which a path holds its logits and probabilities.
ROUNDOFF = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}


def sampled_rows(queries: int, limit: int = 24) -> np.ndarray:
    """Every query row of a small problem; of a large one the first, the last and some between."""
    return np.unique(np.linspace(0, queries - 1, min(queries, limit)).round().astype(np.int64))


def expected_rows(inputs: Inputs, with_bias: bool, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """softmax(q.k + bias, causal).v for some query rows, [batch, heads, rows, dim], and the largest |logit| met."""
    case = inputs.case
    positions = case.keys - case.queries + rows
    offsets = positions[:, None] - np.arange(case.keys)[None, :]
    visible = offsets >= 0
    out = np.empty((case.batch, case.heads, len(rows), case.dim))
    largest = 0.0
    bias_by_offset = inputs.offset_bias().astype(np.float64)
    for head in range(case.heads):
        bias = bias_by_offset[head][np.where(visible, offsets, 0)] if with_bias else 0.0
        for item in range(case.batch):
            keys = inputs.k[item, head].astype(np.float64)
            logits = inputs.q[item, head, rows].astype(np.float64) @ keys.T + bias
            largest = max(largest, float(np.abs(logits[visible]).max()))
            logits = np.where(visible, logits, -np.inf)
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            out[item, head] = weights @ inputs.v[item, head].astype(np.float64)
    return out, largest


def tolerance(inputs: Inputs, precision: str, largest_logit: float) -> float:
    """Bound on |peer - formula|.

    An error e in a logit changes its weight by the factor exp(e), so the output by at most 2e times the largest |v|.
    e is a dot product of `dim` terms summed in fp32, at most dim * eps * |q| |k|, plus the rounding of the logit to
    `precision`. Weights and output are rounded to `precision` too.
    """
    norm = float(np.sqrt((inputs.q**2).sum(-1)).max() * np.sqrt((inputs.k**2).sum(-1)).max())
    logit_error = inputs.case.dim * ROUNDOFF["fp32"] * norm + 2 * ROUNDOFF[precision] * largest_logit
    return float(np.abs(inputs.v).max()) * (2 * logit_error + 4 * ROUNDOFF[precision])


def check(inputs: Inputs, output: np.ndarray, with_bias: bool, precision: str) -> dict[str, float]:
    """Compares a peer's [batch, heads, queries, dim] output with the formula; raises ValueError if it is off."""
    case = inputs.case
    shape = (case.batch, case.heads, case.queries, case.dim)
    if output.shape != shape:
        raise ValueError(f"output has shape {output.shape}, expected {shape}")
    rows = sampled_rows(case.queries)
    expected, largest = expected_rows(inputs, with_bias, rows)
    error = float(np.abs(output[:, :, rows].astype(np.float64) - expected).max())
    allowed = tolerance(inputs, precision, largest)
    if not error <= allowed:
        raise ValueError(f"output differs from the formula by {error:.3g}, allowed {allowed:.3g}")
    return {"max_error": error, "allowed": allowed}
