"""Arrays lie on the pages that were asked for, as /proc/self/smaps says."""

from __future__ import annotations

import unittest

import numpy as np

import pages
from case import Case, make_inputs


def touched(size: int, kind: str) -> np.ndarray:
    values = pages.empty((size,), np.uint8, kind)
    values[:] = 1
    return values


class PagesTest(unittest.TestCase):
    def test_arrays_begin_on_a_huge_page(self):
        for kind in pages.KINDS:
            for shape in ((1,), (3, 5), (1 << 20, 3)):
                values = pages.empty(shape, np.float32, kind)
                self.assertEqual((values.shape, values.dtype), (shape, np.float32))
                self.assertEqual(values.ctypes.data % pages.HUGE_PAGE_BYTES, 0)
                self.assertTrue(values.flags.c_contiguous and values.flags.writeable and not values.any())

    def test_copies_are_row_major(self):
        values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        copied = pages.copy(values.transpose(2, 0, 1), "small")
        self.assertTrue(copied.flags.c_contiguous)
        np.testing.assert_array_equal(copied, values.transpose(2, 0, 1))

    def test_memory_outlives_every_other_name(self):
        part = touched(8 << 20, "huge")[5:]
        self.assertEqual(int(part.sum(dtype=np.int64)), (8 << 20) - 5)

    def test_refuses_other_kinds(self):
        with self.assertRaisesRegex(ValueError, "expected of huge, small; got 'large'"):
            pages.empty((1,), np.uint8, "large")

    def test_huge_is_huge(self):
        if not pages.available():
            self.skipTest("transparent huge pages are [never] here")
        for size in (1000, 16 << 20):
            values = touched(size, "huge")
            self.assertEqual(pages.huge_fraction([pages.span(values)]), 1.0, size)

    def test_small_is_small(self):
        values = touched(16 << 20, "small")
        self.assertEqual(pages.huge_fraction([pages.span(values)]), 0.0)

    def test_arrays_are_counted_one_by_one(self):
        expected = {"huge": 1.0 if pages.available() else 0.0, "small": 0.0}
        arrays = [(kind, touched(4 << 20, kind)) for kind in ("huge", "huge", "small", "huge", "small", "small")]
        for kind, values in arrays:
            self.assertEqual(pages.huge_fraction([pages.span(values)]), expected[kind])
        self.assertEqual(pages.huge_fraction(pages.span(values) for _, values in arrays), 0.0)

    def test_inputs_of_a_case_lie_where_it_says(self):
        for kind in pages.KINDS:
            inputs = make_inputs(Case(1, 2, 256, 256, 64, pages=kind))
            spans = [pages.span(x) for x in (inputs.q, inputs.k, inputs.v, inputs.mask(), inputs.offset_bias())]
            self.assertEqual(pages.huge_fraction(spans[:3]), 1.0 if kind == "huge" and pages.available() else 0.0)
            self.assertTrue(all(address % pages.HUGE_PAGE_BYTES == 0 for address, _ in spans))


if __name__ == "__main__":
    unittest.main()
