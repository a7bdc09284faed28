"""What the pictures show."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

# Offsets from the first to the second; None where there is no end.
Range = Tuple[Optional[int], Optional[int]]


class Window(NamedTuple):
    """A window of queries (rows) and keys (columns). Whatever is drawn depends on offset = query position - key
    position alone.

    Attributes:
        title: the model, its version and the table.
        query_start: position of the first query.
        key_start: position of the first key.
        queries: how many.
        keys: how many.
        causal: whether cells with a negative offset are masked.
        buckets: [queries, keys]; None if the table has none.
        bucket_ranges: the offsets of each bucket, wherever they occur; may lack some.
        heads: whose values these are.
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
        """Of row `query` and column `key`."""
        return self.query_start + query - (self.key_start + key)

    def masked(self, offset: int) -> bool:
        return self.causal and offset < 0

    @property
    def has_masked(self) -> bool:
        return self.masked(self.least_offset)

    def visible(self) -> range:
        """The offsets that the window has and does not mask."""
        return range(0 if self.has_masked else self.least_offset, self.greatest_offset + 1)

    def by_offset(self, cells: Any) -> Dict[int, Any]:
        """What [queries, keys] hold, by offset."""
        along = np.concatenate([cells[0, ::-1], cells[1:, 0]]).tolist()
        return dict(zip(range(self.least_offset, self.greatest_offset + 1), along))
