"""The input of the pictures: a bias window as plain data."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

# Offsets from the first to the second, inclusive; None: unbounded.
Range = Tuple[Optional[int], Optional[int]]


class Window(NamedTuple):
    """A window of queries (rows) and keys (columns). What is drawn in a cell depends only on its offset = query
    position - key position.

    Attributes:
        title: the model, its version and the table.
        query_start: position of the first query.
        key_start: position of the first key.
        queries: number of queries.
        keys: number of keys.
        causal: whether cells with a negative offset are masked.
        buckets: [queries, keys]; None if the table has none.
        bucket_ranges: the offsets of each bucket in the table, inside the window or not; may lack buckets.
        heads: the heads of `values`.
        values: [heads, queries, keys]; None to draw buckets.
    """

    title: str
    query_start: int
    key_start: int
    queries: int
    keys: int
    causal: bool
    buckets: Optional[Any]
    bucket_ranges: Dict[int, Range]
    heads: List[int]
    values: Optional[Any]

    @property
    def least_offset(self) -> int:
        return self.query_start - (self.key_start + self.keys - 1)

    @property
    def greatest_offset(self) -> int:
        return self.query_start + self.queries - 1 - self.key_start

    def offset(self, query: int, key: int) -> int:
        """The offset of row `query` and column `key`."""
        return self.query_start + query - (self.key_start + key)

    def masked(self, offset: int) -> bool:
        return self.causal and offset < 0

    @property
    def has_masked(self) -> bool:
        return self.masked(self.least_offset)

    def visible(self) -> range:
        """The offsets in the window that are not masked."""
        return range(0 if self.has_masked else self.least_offset, self.greatest_offset + 1)

    def by_offset(self, cells: Any) -> Dict[int, Any]:
        """The values of cells [queries, keys], by offset."""
        along = np.concatenate([cells[0, ::-1], cells[1:, 0]]).tolist()
        return dict(zip(range(self.least_offset, self.greatest_offset + 1), along))
