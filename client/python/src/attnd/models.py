"""Models as a server describes them, and what a server reports about itself: dataclasses and numpy arrays."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from attnd._picture_svg import bucket_grid_svg, heat_map_svg
from attnd._picture_text import bucket_grid_text, heat_map_text
from attnd._picture_window import Window

__all__ = [
    "AlibiSlopes",
    "BiasWindow",
    "MemoryUse",
    "Model",
    "PerOffset",
    "QueueUse",
    "ServerInfo",
    "ServingStatus",
    "SessionInfo",
    "SessionUse",
    "Setting",
    "StalledCalls",
    "Svg",
    "T5Buckets",
    "Table",
]

Array = Any  # numpy.ndarray, whose generic form differs between versions of numpy


@dataclass(eq=False)
class T5Buckets:
    """T5's rule: one value per bucket and head.

    Attributes:
        num_buckets: number of buckets, >= 2 (>= 4 if bidirectional). The book's nb is num_buckets - 1.
        max_distance: offsets from here on share the last bucket. The book's dist_max.
        values: float32 [num_buckets, heads]; None in listings.
    """

    num_buckets: int
    max_distance: int
    values: Optional[Array] = None

    def __str__(self) -> str:
        return f"T5, {self.num_buckets} buckets, max distance {self.max_distance}"


@dataclass(eq=False)
class AlibiSlopes:
    """ALiBi (Press et al. 2022): bias = -slope * abs(offset).

    Attributes:
        slopes: float32 [heads]; None in listings.
    """

    slopes: Optional[Array] = None

    def __str__(self) -> str:
        return "ALiBi"


@dataclass(eq=False)
class PerOffset:
    """One value for each offset from ``min_offset`` on; offsets outside the range use the value at the nearer end.

    Attributes:
        min_offset: offset of the first value.
        values: float32 [heads, count], by ascending offset; None in listings.
    """

    min_offset: int
    values: Optional[Array] = None

    def __str__(self) -> str:
        return f"a value per offset from {self.min_offset} on"


Rule = Union[T5Buckets, AlibiSlopes, PerOffset]


@dataclass(eq=False)
class Table:
    """One bias table of a model.

    Attributes:
        rule: how offsets (query position - key position) become biases.
        bidirectional: whether keys after the query have biases of their own (encoders).
        name: "decoder", "encoder", "decoder.N" or "encoder.N". For an upload, "" means "decoder", or "encoder" if
            bidirectional.
        heads: number of heads; for an upload, 0 means the number of heads of the rule's values.

    Example:
        >>> attnd.Table(attnd.T5Buckets(32, 128, np.zeros((32, 8), np.float32)))
        Table(decoder: T5, 32 buckets, max distance 128; causal, 8 heads)
    """

    rule: Rule
    bidirectional: bool = False
    name: str = ""
    heads: int = 0

    def __post_init__(self) -> None:
        if self.heads == 0:
            self.heads = _heads_of(self.rule)

    def __repr__(self) -> str:
        name = self.name or ("encoder" if self.bidirectional else "decoder")
        mask = "bidirectional" if self.bidirectional else "causal"
        return f"Table({name}: {self.rule}; {mask}, {self.heads} heads)"


def _heads_of(rule: Rule) -> int:
    """The number of heads of a rule whose values have the right rank; otherwise 0, which the server refuses."""
    values, rank, axis = (
        (rule.slopes, 1, 0)
        if isinstance(rule, AlibiSlopes)
        else (rule.values, 2, 0 if isinstance(rule, PerOffset) else 1)
    )
    shape = np.shape(values) if values is not None else ()
    return int(shape[axis]) if len(shape) == rank else 0


@dataclass(eq=False)
class Model:
    """A loaded model: an immutable snapshot of its tables.

    Attributes:
        name: the model's name.
        version: counts loads under this name, from 1.
        heads: number of attention heads of its tables.
        tables: its tables, by name.
        source: "embedded", "upload", or its path below the server's model root.
        format: "huggingface", "gguf", "json", "upload".
        architecture: "t5", "mt5", "umt5"; may be "".
        content_hash: SHA-256 of the tables, in hex: equal exactly when the biases are equal.
        loaded_at: when this version was loaded, in UTC.
    """

    name: str
    version: int
    heads: int
    tables: Dict[str, Table]
    source: str
    format: str
    architecture: str
    content_hash: str
    loaded_at: datetime.datetime

    def __repr__(self) -> str:
        return f"Model({self.name} version {self.version}: {', '.join(self.tables)}; {self.heads} heads)"


@dataclass(frozen=True)
class FailedModel:
    """A model in the server's model root that could not be loaded when the server started.

    Attributes:
        name: the name it would have.
        path: below the server's model root; "." for the root itself.
        reason: why it could not be loaded, in one line.
    """

    name: str
    path: str
    reason: str


class Svg(str):
    """An SVG document: a string that a notebook shows as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<attnd.Svg of {len(self)} characters>"


@dataclass(eq=False)
class BiasWindow:
    """The bias of a window of queries and keys. A notebook shows it as a picture; ``print`` shows it as text.

    Attributes:
        model: the model's name.
        version: of the model.
        content_hash: of that version.
        table: name of the table that was used.
        mask: the mask that was applied, "causal" or "none". With "causal", cells with a negative offset are masked:
            they keep their offset, their bucket is -1 and their value is 0.
        query_start: position of the first query.
        key_start: position of the first key.
        offsets: int64 [queries, keys], query position - key position.
        buckets: int32 [queries, keys]; None if the table has no buckets.
        heads: the heads whose values follow.
        values: float32 [heads, queries, keys].
        bucket_ranges: for each bucket in the window, the least and the greatest offset that the table maps to it, in
            this window or not; None where the range is unbounded. Empty if the server is older than this field.

    Example:
        >>> window = client.bias("book", queries=3)
        >>> window.buckets.tolist()
        [[0, -1, -1], [1, 0, -1], [2, 1, 0]]
        >>> window.bucket_ranges
        {0: (None, 0), 1: (1, 1), 2: (2, 3)}
        >>> print(window.text())
        book version 1, decoder: buckets
        <BLANKLINE>
            k0 k1 k2
        q0  u0  ·  ·
        q1  u1 u0  ·
        q2  u2 u1 u0
        <BLANKLINE>
        offset = query position - key position
        u0: 0   u1: 1   u2: 2 to 3
        ·: masked, the key comes after the query
        <BLANKLINE>
    """

    model: str
    version: int
    content_hash: str
    table: str
    mask: str
    query_start: int
    key_start: int
    offsets: Array
    buckets: Optional[Array]
    heads: List[int]
    values: Array
    bucket_ranges: Dict[int, Tuple[Optional[int], Optional[int]]] = field(default_factory=dict)

    def svg(self, head: Optional[int] = None, *, heads: Union[str, Sequence[int], None] = None) -> Svg:
        """Draws a standalone SVG document: the grid of buckets; with ``head`` a heat map of that head's values; with
        ``heads`` (numbers, or "all") a heat map of each of them on one scale.

        The result is a string that a notebook shows as a picture. A table without buckets is drawn as the heat map of
        its first head. Raises ValueError for a head whose values are not in the window.
        """
        window = self._window(head, heads)
        return Svg(bucket_grid_svg(window) if window.values is None else heat_map_svg(window))

    def text(
        self,
        head: Optional[int] = None,
        *,
        heads: Union[str, Sequence[int], None] = None,
        columns: int = 0,
        colour: bool = False,
    ) -> str:
        """Draws the same as lines of text. If a line would exceed ``columns`` characters (0: no limit), only every n-th
        query and key is shown. ``colour`` adds ANSI colours."""
        window = self._window(head, heads)
        draw = bucket_grid_text if window.values is None else heat_map_text
        return draw(window, columns=columns, colour=colour)

    def _window(self, head: Optional[int], heads: Union[str, Sequence[int], None]) -> Window:
        chosen = self._chosen(head, heads)
        return Window(
            title=f"{self.model} version {self.version}, {self.table}",
            query_start=self.query_start,
            key_start=self.key_start,
            queries=int(self.offsets.shape[0]),
            keys=int(self.offsets.shape[1]),
            causal=self.mask == "causal",
            buckets=self.buckets,
            bucket_ranges=self.bucket_ranges,
            heads=chosen,
            values=self.values[[self.heads.index(head) for head in chosen]] if chosen else None,
        )

    def _chosen(self, head: Optional[int], heads: Union[str, Sequence[int], None]) -> List[int]:
        """The heads whose values are drawn; empty if buckets are drawn."""
        if head is not None and heads is not None:
            raise ValueError("heads: expected head or heads, got both")
        if isinstance(heads, str):
            if heads != "all":
                raise ValueError(f"heads: expected numbers or 'all', got {heads!r}")
            return self.heads
        if head is None and heads is None:
            return [] if self.buckets is not None else self.heads[:1]
        name = "head" if heads is None else "heads"
        chosen = list(heads) if heads is not None else [] if head is None else [head]
        if not chosen:
            raise ValueError(f"heads: expected some of {self.heads}, got none")
        for one in chosen:
            if one not in self.heads:
                raise ValueError(f"{name}: expected one of {self.heads}, got {one}")
        return chosen

    def _repr_svg_(self) -> str:
        return self.svg()

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        queries, keys = self.offsets.shape
        return f"BiasWindow({self.model}, {self.table}: {queries} queries, {keys} keys, heads {self.heads})"


class ServingStatus(enum.Enum):
    """The status that gRPC's health service reports for a server or one of its services."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


@dataclass(frozen=True)
class Setting:
    """A setting that the server's speed depends on.

    Attributes:
        name: for example "huge_pages".
        state: "in force" (its effect was observed), "not in force", "requested" (its effect cannot be observed by the
            server) or "unspecified".
        detail: what was found, in words.
    """

    name: str
    state: str
    detail: str


@dataclass(frozen=True)
class MemoryUse:
    """How much of a memory limit was in use when the server answered, and what it has refused since it started.

    Attributes:
        total_bytes: the limit.
        used_bytes: reserved.
        peak_bytes: the most that was reserved at once.
        free_bytes: not reserved.
        peers: number of peers that hold a reservation.
        largest_peer_bytes: reserved by the peer that holds most.
        refused_by_total: requests refused because less was free than they need.
        refused_by_share: requests refused because their peer would hold more than would remain free.
        refused_as_never_fitting: requests refused because they need more than one peer can ever have.
        max_peer_bytes: the most that one peer can have; 0 if the server is older than this field.
    """

    total_bytes: int = 0
    used_bytes: int = 0
    peak_bytes: int = 0
    free_bytes: int = 0
    peers: int = 0
    largest_peer_bytes: int = 0
    refused_by_total: int = 0
    refused_by_share: int = 0
    refused_as_never_fitting: int = 0
    max_peer_bytes: int = 0


@dataclass(frozen=True)
class StalledCalls:
    """Calls that the server has ended because the client stalled.

    Attributes:
        writes: the result was not read in time.
        reads: the request did not arrive in time.
    """

    writes: int = 0
    reads: int = 0


@dataclass(frozen=True)
class QueueUse:
    """The queue: calls that wait, and calls that were not computed because of overload.

    Attributes:
        waiting: calls that wait now, to be received or to be computed; small calls do not wait to be computed.
        refused: calls refused since the server started, because they would have finished after their deadline or,
            without a deadline, would have waited longer than ``--max_queue_time``.
        expired: calls whose deadline passed in the queue since the server started; nothing of them was computed.
    """

    waiting: int = 0
    refused: int = 0
    expired: int = 0


@dataclass(frozen=True)
class SessionUse:
    """How many sessions a server has.

    Attributes:
        open: sessions that are open now.
        evicted: sessions ended since the server started because they were idle for too long or too old, or because an
            operator evicted them.
        max_sessions: the most that may be open.
        max_peer_sessions: the most that may be open for one peer.
    """

    open: int = 0
    evicted: int = 0
    max_sessions: int = 0
    max_peer_sessions: int = 0


@dataclass(frozen=True)
class SessionInfo:
    """A session that is open at the server.

    Attributes:
        id: its number, which the server never reuses.
        peer: the client's address, as gRPC writes it ("ipv4:10.0.0.1:4242", "unix:").
        model: the name of its model; "" without a model, and before the opening is complete.
        version: of the model.
        rows: number of sequences; 0 before the opening is complete.
        sources: number of sources that cross layers attend to.
        layers: number of layers.
        reserved_bytes: bytes of the server's memory that are reserved for it.
        used_bytes: bytes of the pages that it uses now.
        steps: number of steps answered without an error.
        age: seconds since it began.
        idle: seconds since its last message or answer; 0 while a step is computed.
    """

    id: int
    peer: str
    model: str
    version: int
    rows: int
    sources: int
    layers: int
    reserved_bytes: int
    used_bytes: int
    steps: int
    age: float
    idle: float


@dataclass(frozen=True)
class ServerInfo:
    """What a server reports about itself.

    Attributes:
        version: semantic version of attnd.
        kernel: the kernel in use, for example "x86-64-v4".
        available_kernels: all kernels that the server's CPU can run, best first.
        threads: worker threads that compute attention.
        started_at: when the server started, in UTC.
        limits: limits in force by name, as in attnd/v1/server.proto ("max_request_bytes", "max_dim", ...).
        settings: settings that the server's speed depends on, as found when it started.
        local_calls: whether the local sockets next to the server's Unix sockets accept calls.
        memory: what calls use of "max_inflight_bytes"; None if the server is older than this field.
        shared_memory: what clients use of "max_shared_bytes"; None if the server does not offer shared memory.
        stalled_calls: calls that the server has ended because the client stalled.
        model_bytes: bytes of the tables of all models now.
        queue: calls that wait.
        sessions: open sessions and their limits; None if the server does not offer sessions.
    """

    version: str
    kernel: str
    available_kernels: List[str]
    threads: int
    started_at: datetime.datetime
    limits: Dict[str, int] = field(default_factory=dict)
    settings: List[Setting] = field(default_factory=list)
    local_calls: bool = False
    memory: Optional[MemoryUse] = None
    shared_memory: Optional[MemoryUse] = None
    stalled_calls: StalledCalls = field(default_factory=StalledCalls)
    model_bytes: int = 0
    queue: QueueUse = field(default_factory=QueueUse)
    sessions: Optional[SessionUse] = None

    def __repr__(self) -> str:
        calls = ", local calls" if self.local_calls else ""
        return f"ServerInfo(attnd {self.version}: {self.kernel}, {self.threads} threads{calls})"
