"""What the pictures show."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional


class Window(NamedTuple):
    """A window of queries (rows) and keys (columns). All arrays are [queries, keys].

    Attributes:
        title: the heading.
        query_start: position of the first query.
        key_start: position of the first key.
        masked: cells that are left empty.
        offsets: query position - key position.
        buckets: None if the table has none.
        values: of one head; None to draw buckets.
        head: whose values these are.
    """

    title: str
    query_start: int
    key_start: int
    masked: Any
    offsets: Any
    buckets: Optional[Any]
    values: Optional[Any]
    head: int

    @property
    def queries(self) -> int:
        return int(self.offsets.shape[0])

    @property
    def keys(self) -> int:
        return int(self.offsets.shape[1])
