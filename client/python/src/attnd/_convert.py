"""Converts messages to the dataclasses of `models.py`, and back."""

from __future__ import annotations

import datetime
from typing import Any, Optional, Sequence, Tuple, Union

import numpy as np

from attnd._arguments import integer, model_name, text
from attnd._request import mask_number
from attnd.errors import Internal, InvalidArgument
from attnd.models import (
    AlibiSlopes,
    BiasWindow,
    FailedModel,
    MemoryUse,
    Model,
    PerOffset,
    QueueUse,
    Rule,
    ServerInfo,
    SessionInfo,
    SessionUse,
    Setting,
    StalledCalls,
    T5Buckets,
    Table,
)
from attnd.v1 import model_pb2, server_pb2, session_pb2

_MASK_NAMES = {0: "unspecified", 1: "causal", 2: "none"}
_STATE_NAMES = {0: "unspecified", 1: "in force", 2: "not in force", 3: "requested"}


def model_of(message: model_pb2.Model) -> Model:
    return Model(
        name=message.name,
        version=message.version,
        heads=message.heads,
        tables={table.name: _table_of(table) for table in message.tables},
        source=message.source,
        format=message.format,
        architecture=message.architecture,
        content_hash=message.content_hash,
        loaded_at=_time_of(message.loaded_at),
    )


def failed_model_of(message: model_pb2.FailedModel) -> FailedModel:
    return FailedModel(name=message.name, path=message.path, reason=message.reason)


def upload_request(model: str, table: Table, replace: bool) -> model_pb2.UploadTableRequest:
    if not isinstance(table, Table):
        raise InvalidArgument.of("table", "an attnd.Table", f"a {type(table).__qualname__}")
    message = model_pb2.UploadTableRequest(model=model_name(model), replace=bool(replace))
    message.table.name = text("table.name", table.name, "a table's name")
    message.table.heads = integer("table.heads", table.heads)
    message.table.bidirectional = bool(table.bidirectional)
    rule = table.rule
    if isinstance(rule, T5Buckets):
        message.table.t5.num_buckets = integer("table.t5.num_buckets", rule.num_buckets)
        message.table.t5.max_distance = integer("table.t5.max_distance", rule.max_distance)
        shape = "[num_buckets, heads]"
        message.table.t5.values.extend(_floats("table.t5.values", rule.values, (rule.num_buckets, table.heads), shape))
    elif isinstance(rule, AlibiSlopes):
        message.table.alibi.slopes.extend(_floats("table.alibi.slopes", rule.slopes, (table.heads,), "[heads]"))
    elif isinstance(rule, PerOffset):
        lowest = -(2**63)
        message.table.per_offset.min_offset = integer("table.per_offset.min_offset", rule.min_offset, lowest)
        name, shape = "table.per_offset.values", "[heads, count]"
        message.table.per_offset.values.extend(_floats(name, rule.values, (table.heads, None), shape))
    else:
        raise InvalidArgument.of("table.rule", "T5Buckets, AlibiSlopes or PerOffset", f"a {type(rule).__qualname__}")
    return message


def bias_request(
    model: str,
    version: int,
    table: Optional[str],
    query_start: int,
    queries: int,
    key_start: int,
    keys: Optional[int],
    mask: Optional[str],
    heads: Union[str, Sequence[int], None],
) -> model_pb2.GetBiasRequest:
    if heads == "all" and isinstance(heads, str):
        heads = None
    if heads is not None and (isinstance(heads, (str, bytes)) or not hasattr(heads, "__iter__")):
        raise InvalidArgument.of("heads", "heads, or None or 'all' for all", repr(heads)[:80])
    return model_pb2.GetBiasRequest(
        model=model_name(model),
        version=integer("version", version, 0, 2**64 - 1),
        table=text("table", table, "a table's name"),
        query_start=integer("query_start", query_start),
        query_count=integer("queries", queries, 1),
        key_start=integer("key_start", key_start),
        key_count=integer("keys", queries if keys is None else keys, 1),
        mask=mask_number(mask),  # type: ignore[arg-type]
        heads=[integer(f"heads[{i}]", head) for i, head in enumerate(heads if heads is not None else ())],
    )


def bias_window_of(request: model_pb2.GetBiasRequest, message: model_pb2.GetBiasResponse) -> BiasWindow:
    """Raises Internal if the answer does not have the window's size."""
    shape = (request.query_count, request.key_count)
    cells = shape[0] * shape[1]
    if (
        len(message.offsets) != cells
        or len(message.buckets) not in (0, cells)
        or not message.heads
        or len(message.values) != cells * len(message.heads)
    ):
        raise Internal("the server's reply does not have the window's size")
    return BiasWindow(
        model=request.model,
        version=message.version,
        content_hash=message.content_hash,
        table=message.table,
        mask=_MASK_NAMES.get(message.mask, "unspecified"),
        query_start=request.query_start,
        key_start=request.key_start,
        offsets=np.array(message.offsets, np.int64).reshape(shape),
        buckets=np.array(message.buckets, np.int32).reshape(shape) if message.buckets else None,
        heads=list(message.heads),
        values=np.array(message.values, np.float32).reshape((len(message.heads), *shape)),
        bucket_ranges={range_.bucket: _ends_of(range_) for range_ in message.bucket_ranges},
    )


def _ends_of(range_: model_pb2.BucketRange) -> Tuple[Optional[int], Optional[int]]:
    return (
        range_.min_offset if range_.HasField("min_offset") else None,
        range_.max_offset if range_.HasField("max_offset") else None,
    )


def server_info_of(message: server_pb2.GetServerInfoResponse) -> ServerInfo:
    limits = message.limits
    return ServerInfo(
        version=message.version,
        kernel=message.kernel,
        available_kernels=list(message.available_kernels),
        threads=message.threads,
        started_at=_time_of(message.started_at),
        limits={limit.name: getattr(limits, limit.name) for limit in limits.DESCRIPTOR.fields},
        settings=[Setting(s.name, _STATE_NAMES.get(s.state, "unspecified"), s.detail) for s in message.settings],
        local_calls=message.local_calls,
        memory=_use_of(message.memory) if message.HasField("memory") else None,
        shared_memory=_use_of(message.shared_memory) if message.HasField("shared_memory") else None,
        stalled_calls=StalledCalls(message.stalled_calls.writes, message.stalled_calls.reads),
        model_bytes=message.model_bytes,
        queue=QueueUse(message.queue.waiting, message.queue.refused, message.queue.expired),
        sessions=_sessions_of(message.sessions) if message.HasField("sessions") else None,
    )


def session_info_of(message: session_pb2.SessionInfo) -> SessionInfo:
    return SessionInfo(
        id=message.id,
        peer=message.peer,
        model=message.model,
        version=message.version,
        rows=message.rows,
        sources=message.sources,
        layers=message.layers,
        reserved_bytes=message.reserved_bytes,
        used_bytes=message.used_bytes,
        steps=message.steps,
        age=message.age.seconds + message.age.nanos / 1e9,
        idle=message.idle.seconds + message.idle.nanos / 1e9,
    )


def _sessions_of(use: server_pb2.SessionUse) -> SessionUse:
    return SessionUse(use.open, use.evicted, use.max_sessions, use.max_peer_sessions)


def _use_of(message: server_pb2.MemoryUse) -> MemoryUse:
    return MemoryUse(**{count.name: getattr(message, count.name) for count in message.DESCRIPTOR.fields})


def _table_of(message: model_pb2.Table) -> Table:
    rule: Rule
    kind = message.WhichOneof("rule")
    if kind == "alibi":
        rule = AlibiSlopes(_array(message.alibi.slopes, (message.heads,)))
    elif kind == "per_offset":
        rule = PerOffset(message.per_offset.min_offset, _array(message.per_offset.values, (message.heads, -1)))
    else:
        t5 = message.t5
        rule = T5Buckets(t5.num_buckets, t5.max_distance, _array(t5.values, (t5.num_buckets, message.heads)))
    return Table(rule, message.bidirectional, message.name, message.heads)


def _array(values: Any, shape: Any) -> Any:
    if not values:
        return None
    try:
        return np.array(values, np.float32).reshape(shape)
    except ValueError:
        raise Internal(f"the server's reply has a table of {len(values)} values, which is not {shape}") from None


def _floats(name: str, values: Any, shape: Any, words: str) -> Any:
    """Flattens values after checking that they have the rank and sizes of `shape`, where None is any size."""
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise InvalidArgument.of(name, f"numbers, {words}", repr(values)[:80]) from None
    same = array.ndim == len(shape) and all(size in (None, got) for size, got in zip(shape, array.shape))
    if not same:
        raise InvalidArgument.of(name, f"{words}, {[s for s in shape if s is not None]}", str(list(array.shape)))
    return array.ravel().tolist()


def _time_of(stamp: Any) -> datetime.datetime:
    zero = datetime.datetime.fromtimestamp(0, datetime.timezone.utc)
    return zero + datetime.timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
