"""The check that peers must pass: it accepts right outputs and refuses wrong ones. `python3 -m unittest` in this folder."""

from __future__ import annotations

import dataclasses
import unittest

import numpy as np

import formula
import t5_bias
from case import Case, Inputs, make_inputs

CASE = Case(batch=2, heads=3, queries=40, keys=150, dim=16)


def attention(inputs: Inputs, mask: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """The formula with whole matrices, in float64."""
    logits = scale * np.einsum("bhqd,bhkd->bhqk", inputs.q.astype(np.float64), inputs.k) + mask
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.einsum("bhqk,bhkd->bhqd", weights / weights.sum(axis=-1, keepdims=True), inputs.v)


class BiasTest(unittest.TestCase):
    def test_buckets_are_those_of_t5(self):
        # Read off Hugging Face's T5 with 32 buckets up to distance 128.
        expected = {0: 0, 15: 15, 16: 16, 18: 16, 19: 17, 31: 21, 32: 21, 64: 26, 112: 30, 113: 31, 5000: 31}
        got = t5_bias.buckets(np.array(list(expected)))
        self.assertEqual(got.tolist(), list(expected.values()))

    def test_mask_holds_the_bias_by_offset(self):
        bias = np.arange(2 * 7, dtype=np.float32).reshape(2, 7)
        mask = t5_bias.causal_mask(bias, queries=3, keys=7)
        for head, row, key in np.ndindex(2, 3, 7):
            offset = 4 + row - key
            self.assertEqual(mask[head, row, key], bias[head, offset] if offset >= 0 else -np.inf)


    def test_mask_of_one_token(self):
        mask = t5_bias.causal_mask(np.ones((2, 1), np.float32), queries=1, keys=1)
        self.assertEqual(mask.tolist(), [[[1.0]], [[1.0]]])
        self.assertTrue(all(stride > 0 for stride in mask.strides))


class CheckTest(unittest.TestCase):
    def test_accepts_the_formula_in_every_dtype(self):
        for dtype in ("fp32", "fp16", "bf16"):
            inputs = make_inputs(dataclasses.replace(CASE, dtype=dtype))
            formula.check(inputs, attention(inputs, inputs.mask()), True, dtype)
            without = np.where(np.isinf(inputs.mask()), -np.inf, 0.0)
            formula.check(inputs, attention(inputs, without), False, dtype)

    def test_refuses_what_is_wrong(self):
        inputs = make_inputs(CASE)
        mask = inputs.mask()
        moved = np.concatenate([mask[:, :, :1], mask[:, :, :-1]], axis=2)
        nan = attention(inputs, mask)
        nan[0, 0, 0, 0] = np.nan
        wrong = {
            "no bias": attention(inputs, np.where(np.isinf(mask), -np.inf, 0.0)),
            "offset by one": attention(inputs, np.where(np.isinf(mask), -np.inf, moved)),
            "not causal": attention(inputs, np.where(np.isinf(mask), 0.0, mask)),
            "scaled": attention(inputs, mask, scale=0.25),
            "heads swapped": attention(inputs, mask[::-1]),
            "not a number": nan,
        }
        for name, output in wrong.items():
            with self.subTest(name), self.assertRaises(ValueError):
                formula.check(inputs, output, True, "fp32")

    def test_refuses_another_shape(self):
        inputs = make_inputs(CASE)
        with self.assertRaisesRegex(ValueError, "shape"):
            formula.check(inputs, attention(inputs, inputs.mask())[:, :, :-1], True, "fp32")


if __name__ == "__main__":
    unittest.main()
