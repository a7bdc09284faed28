"""Sessions: keys and values that the server keeps (attnd/v1/session.proto). Operations for both clients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from attnd import _dtypes, _masks, _tensors, _wire
from attnd._answer import not_an_answer, placed
from attnd._arguments import integer, model_name, one_of, text
from attnd._core import Core
from attnd._deadline import Deadline, checked_timeout
from attnd._duplex import Duplex
from attnd._operation import Operation
from attnd._request import LAYOUTS, precision_number, scale_number
from attnd._status import error_in
from attnd.errors import Error, InvalidArgument
from attnd.v1 import session_pb2

METHOD = "/attnd.v1.SessionService/Attend"

_MAX_POSITION = 2**31 - 1
# Beyond a step's time until its session is given up.
_GRACE_SECONDS = 5.0
# A timeout beyond it, three thousand years, is none.
_MOST_SECONDS = 1e11
_TABLE = 'the name of a table: "decoder", "decoder.N"'
_SELF, _CROSS = 1, 2  # attnd.v1.SessionLayerKind


@dataclass(frozen=True)
class SelfLayer:
    """A layer whose keys and values belong to the rows of a session: causal, with the bias of a model's table.

    Attributes:
        heads: number of query heads.
        head_dim: elements in a row of q and k.
        table: of the session's model: "decoder" (also if None), or "decoder.N" for layer N.
        bias: False for none.
        kv_heads: number of key/value heads; divides heads. None is heads.
        value_head_dim: elements in a row of v and of the output; None is head_dim.
        scale: factor of q.k; None is 1, as T5 has it.
    """

    heads: int
    head_dim: int
    table: Optional[str] = None
    bias: bool = True
    kv_heads: Optional[int] = None
    value_head_dim: Optional[int] = None
    scale: Optional[float] = None


@dataclass(frozen=True)
class CrossLayer:
    """A layer whose keys and values belong to the sources of a session, which rows share: every key is visible, and no
    bias is added. Attributes as :class:`SelfLayer` has them."""

    heads: int
    head_dim: int
    kv_heads: Optional[int] = None
    value_head_dim: Optional[int] = None
    scale: Optional[float] = None


Layer = Union[SelfLayer, CrossLayer]


@dataclass(eq=False)
class StepReply:
    """What a step gave.

    Attributes:
        output: [rows, heads, query_length, value_head_dim] in the step's layout, of the kind that went in; None without
            queries.
        log_sum_exp: float32 [rows, heads, query_length]; None if it was not asked for.
        lengths: tokens that each row (of a cross layer: each source) has in the step's layer now.
        used_bytes: bytes of pages that the session uses now.
        queue_time: seconds until its computation began.
        compute_time: seconds from then on.
    """

    output: Any
    log_sum_exp: Any
    lengths: Tuple[int, ...]
    used_bytes: int
    queue_time: float
    compute_time: float


class State:
    """A session that is open. Thread-safe as far as its stream is."""

    def __init__(self, core: Core, layers: Sequence[Layer], rows: int, sources: int) -> None:
        self.core = core
        self.layers = tuple(layers)
        self.rows = rows
        self.sources = sources
        self.opened = session_pb2.SessionOpened()
        self.going_away: Optional[float] = None
        self.next_step = 1
        self.stream: Duplex = Duplex()

    def answer(self, message: bytes) -> Optional[Tuple[Any, Dict[int, memoryview]]]:
        """The answer that a message is, or None for what is none."""
        small, tensors = _wire.split(message)
        reply = _wire.parse(session_pb2.SessionReply, small, f"{_wire.NOT_AN_ANSWER}it is no SessionReply")
        if reply.HasField("going_away"):
            left = reply.going_away.time_left
            self.going_away = left.seconds + left.nanos / 1e9
            return None
        if reply.HasField("result") and reply.result.code == 0:
            self.next_step = reply.result.step + 1
        return reply, tensors


def open_session(
    core: Core,
    layers: Sequence[Layer],
    model: Optional[str] = None,
    *,
    rows: int = 1,
    sources: int = 0,
    max_tokens: int = 0,
    max_source_tokens: int = 0,
    dtype: Any = "float32",
    version: int = 0,
    row_sources: Optional[Sequence[int]] = None,
    timeout: Optional[float] = None,
    metadata: Any = None,
) -> Operation[State]:
    """Opens a session: the server keeps keys and values, and each step sends the new tokens' alone.

    Args:
        layers: a :class:`SelfLayer` or :class:`CrossLayer` for each attention layer of the model, in any order.
        model: name of a loaded model, whose bias the self layers have; None if no layer has a bias.
        rows: sequences that grow (batch times beams).
        sources: what rows attend across to, 1 to rows; 0 without cross layers.
        max_tokens: the most tokens that a row may get.
        max_source_tokens: the most tokens that a source may get.
        dtype: in which keys and values are kept: float32, float16 or bfloat16.
        version: of the model; 0 is the current one. The session keeps it.
        row_sources: the source of each row, [rows]; None: rows stand together by their sources.
        timeout: seconds for the opening; None is the client's, ``float("inf")`` is none.
        metadata: gRPC metadata to send along.

    Raises:
        InvalidArgument: an argument is out of range; ``error.field`` names it.
        NotFound: no such model, version or table.
        ResourceExhausted: no memory for all that the session may keep, or too many sessions.
        Unavailable: the server was not reached, or is stopping.

    Close it, or use it in a ``with`` statement: what it keeps is memory of the server. It is lost with its connection.

    Example:
        >>> layers = [attnd.SelfLayer(heads=8, head_dim=64)]
        >>> with client.session(layers, "t5-tiny", rows=2, max_tokens=100) as session:
        ...     for _ in range(3):
        ...         q, k, v = (np.ones((2, 8, 1, 64), np.float32) for _ in range(3))
        ...         output = session.attend(0, q, k, v)
        ...     output.shape, session.lengths(0)
        ((2, 8, 1, 64), (3, 3))
    """
    deadline, pairs = core.begin(timeout, metadata)
    message, state = _opening(
        core, layers, model, rows, sources, max_tokens, max_source_tokens, dtype, version, row_sources
    )
    yield from core.repeated(core.io, deadline, lambda: _attempt(core, state, message, deadline, pairs))
    return state


def _opening(
    core: Core,
    layers: Sequence[Layer],
    model: Optional[str],
    rows: Any,
    sources: Any,
    max_tokens: Any,
    max_source_tokens: Any,
    dtype: Any,
    version: Any,
    row_sources: Any,
) -> Tuple[session_pb2.SessionRequest, State]:
    if not isinstance(layers, (list, tuple)):
        raise InvalidArgument.of("layers", "a list of layers", f"a {type(layers).__qualname__}")
    rows = integer("rows", rows, 1)
    sources = integer("sources", sources, 0, rows)
    if row_sources is not None and sources == 0:
        raise InvalidArgument.of("row_sources", "none without sources", repr(row_sources)[:80])
    found = [_layer_message(i, layer) for i, layer in enumerate(layers)]
    open_ = session_pb2.SessionOpen(
        model="" if model is None else model_name(model),
        version=integer("version", version, 0, 2**64 - 1),
        rows=rows,
        sources=sources,
        layers=found,
        dtype=_dtypes.parse("dtype", dtype),  # type: ignore[arg-type]
        max_tokens=integer("max_tokens", max_tokens),
        max_source_tokens=integer("max_source_tokens", max_source_tokens),
        row_sources=_masks.each_sequence("row_sources", row_sources, rows, 0, max(sources - 1, 0)),
    )
    return session_pb2.SessionRequest(open=open_), State(core, layers, rows, sources)


def _layer_message(index: int, layer: Any) -> session_pb2.SessionLayer:
    name = f"layers[{index}]"
    if not isinstance(layer, (SelfLayer, CrossLayer)):
        raise InvalidArgument.of(name, "an attnd.SelfLayer or attnd.CrossLayer", f"a {type(layer).__qualname__}")
    is_self = isinstance(layer, SelfLayer)
    message = session_pb2.SessionLayer(
        kind=_SELF if is_self else _CROSS,  # type: ignore[arg-type]
        heads=integer(f"{name}.heads", layer.heads, 1),
        head_dim=integer(f"{name}.head_dim", layer.head_dim, 1),
        kv_heads=0 if layer.kv_heads is None else integer(f"{name}.kv_heads", layer.kv_heads, 1),
        value_head_dim=0
        if layer.value_head_dim is None
        else integer(f"{name}.value_head_dim", layer.value_head_dim, 1),
    )
    if isinstance(layer, SelfLayer):
        message.table = text(f"{name}.table", layer.table, _TABLE)
        message.bias = 0 if layer.bias else 1  # type: ignore[assignment]
    if layer.scale is not None:
        message.scale = scale_number(layer.scale, f"{name}.scale")
    return message


def _attempt(
    core: Core, state: State, message: session_pb2.SessionRequest, deadline: Deadline, metadata: Any
) -> Operation[None]:
    state.stream = yield lambda: core.io.duplex(METHOD, metadata)
    data = message.SerializeToString()
    try:
        seconds = deadline.left()
        reply, _ = yield lambda: state.stream.ask(lambda: data, state.answer, math.inf if seconds is None else seconds)
    except Error:
        yield state.stream.close
        raise
    if not reply.HasField("opened"):
        yield state.stream.close
        raise not_an_answer("it is none to the opening of a session")
    state.opened = reply.opened


def step(
    state: State,
    layer: int,
    q: Any = None,
    k: Any = None,
    v: Any = None,
    *,
    reorder: Optional[Sequence[int]] = None,
    truncate: Optional[Sequence[int]] = None,
    expected_lengths: Union[int, Sequence[int], None] = None,
    key_starts: Optional[Sequence[int]] = None,
    key_mask: Any = None,
    key_lengths: Optional[Sequence[int]] = None,
    query_lengths: Optional[Sequence[int]] = None,
    layout: str = "bhsd",
    output_dtype: Any = None,
    product_precision: Any = None,
    return_log_sum_exp: bool = False,
    timeout: Optional[float] = None,
) -> Operation[StepReply]:
    """One step of one layer: rows change places, keys and values are appended, queries are answered, in this order.

    All of it is optional, and nothing is half done: after an error the session is as it was before, and goes on. Only a
    step larger than the server's ``max_request_bytes`` (:meth:`Client.server_info`) ends the session: append a long
    prompt in several steps.

    Args:
        layer: its place in the session's layers.
        q: [rows, heads, query_length, head_dim] in ``layout``: the queries of each row's last tokens, those of this
            step among them. None attends nothing.
        k: [rows, kv_heads, key_length, head_dim], of a cross layer [sources, ...]: appended to what is there. None
            appends nothing.
        v: [rows, kv_heads, key_length, value_head_dim], beside k.
        reorder: row r becomes what row ``reorder[r]`` was, in all self layers, [rows]. Nothing is copied.
        truncate: the most tokens that each row keeps, in all self layers, [rows].
        expected_lengths: tokens that rows (or sources) should have in this layer before anything is appended, one
            number for all or [rows]; another number is an error.
        key_starts: first true key of each row, [rows] (padding on the left), for all self layers from now on.
        key_mask: of a cross layer: which tokens of each source are true, [sources, n], from now on.
        key_lengths: true number of keys of each row or source in k; None is all.
        query_lengths: true number of queries of each row in q; None is all. Output rows of the others are zeros.
        layout: order of the axes of q, k, v and the output: "bhsd" or "bshd".
        output_dtype: element type of the output; None is that of q.
        product_precision: arithmetic of the products, "float32" or "bfloat16"; None follows the dtypes.
        return_log_sum_exp: also return the natural log-sum-exp of each row's logits.
        timeout: seconds that the server may take; None is the client's, ``float("inf")`` is none.

    Raises:
        InvalidArgument: an argument is out of range; ``error.field`` names it.
        OutOfRange: a row or source would have more tokens than the session was opened for.
        FailedPrecondition: other lengths than were expected; or the client is closed.
        ResourceExhausted: no memory for the step's message or result now; or a step that changes rows and appends many
            tokens (which two steps can).
        DeadlineExceeded: not done within the timeout; nothing has been appended. A server that answers nothing for five
            seconds more is given up, and the session with it.
        Aborted: the session was idle for too long, or too old, and is gone.
        Unavailable: the connection was lost, and the session with it.
    """
    state.core.check_open()
    timeout = checked_timeout(timeout, state.core.options.timeout)
    if timeout > _MOST_SECONDS:
        timeout = math.inf
    plan = _Step(
        state,
        layer,
        (q, k, v),
        layout,
        output_dtype,
        product_precision,
        return_log_sum_exp,
    )
    plan.say(reorder, truncate, expected_lengths, key_starts, key_mask, key_lengths, query_lengths, timeout)
    # The server keeps the step's time; this is for one that answers nothing any more.
    seconds = max(timeout, 0) + _GRACE_SECONDS
    reply, tensors = yield lambda: state.stream.ask(plan.message, state.answer, seconds)
    return plan.reply(reply, tensors)


def attend(
    state: State,
    layer: int,
    q: Any,
    k: Any = None,
    v: Any = None,
    *,
    reorder: Optional[Sequence[int]] = None,
    truncate: Optional[Sequence[int]] = None,
    expected_lengths: Union[int, Sequence[int], None] = None,
    key_starts: Optional[Sequence[int]] = None,
    key_mask: Any = None,
    key_lengths: Optional[Sequence[int]] = None,
    query_lengths: Optional[Sequence[int]] = None,
    layout: str = "bhsd",
    output_dtype: Any = None,
    product_precision: Any = None,
    return_log_sum_exp: bool = False,
    timeout: Optional[float] = None,
) -> Operation[Any]:
    """A step that returns the output alone, or with ``return_log_sum_exp`` a pair of output and log-sum-exp. The
    arguments are those of :meth:`step`."""
    reply = yield from step(
        state,
        layer,
        q,
        k,
        v,
        reorder=reorder,
        truncate=truncate,
        expected_lengths=expected_lengths,
        key_starts=key_starts,
        key_mask=key_mask,
        key_lengths=key_lengths,
        query_lengths=query_lengths,
        layout=layout,
        output_dtype=output_dtype,
        product_precision=product_precision,
        return_log_sum_exp=return_log_sum_exp,
        timeout=timeout,
    )
    return (reply.output, reply.log_sum_exp) if return_log_sum_exp else reply.output


def append(
    state: State,
    layer: int,
    k: Any,
    v: Any,
    *,
    reorder: Optional[Sequence[int]] = None,
    truncate: Optional[Sequence[int]] = None,
    expected_lengths: Union[int, Sequence[int], None] = None,
    key_starts: Optional[Sequence[int]] = None,
    key_mask: Any = None,
    key_lengths: Optional[Sequence[int]] = None,
    layout: str = "bhsd",
    timeout: Optional[float] = None,
) -> Operation[Tuple[int, ...]]:
    """A step that appends and attends nothing; returns the lengths. The arguments are those of :meth:`step`."""
    reply = yield from step(
        state,
        layer,
        None,
        k,
        v,
        reorder=reorder,
        truncate=truncate,
        expected_lengths=expected_lengths,
        key_starts=key_starts,
        key_mask=key_mask,
        key_lengths=key_lengths,
        layout=layout,
        timeout=timeout,
    )
    return reply.lengths


def reorder(state: State, rows: Sequence[int]) -> Operation[None]:
    """Row r becomes what row ``rows[r]`` was, in all self layers. As an argument of a step it costs no call of its
    own."""
    yield from step(state, 0, reorder=rows)


def lengths(state: State, layer: int) -> Operation[Tuple[int, ...]]:
    """Tokens that each row, or source, has in a layer."""
    reply = yield from step(state, layer)
    return reply.lengths


class _Step:
    """A step's message, and what its answer must be."""

    def __init__(
        self,
        state: State,
        layer: Any,
        tensors: Tuple[Any, Any, Any],
        layout: Any,
        output_dtype: Any,
        product_precision: Any,
        return_log_sum_exp: bool,
    ) -> None:
        self._state = state
        self._index = integer("layer", layer, 0, len(state.layers) - 1)
        self._layer = state.layers[self._index]
        self._is_self = isinstance(self._layer, SelfLayer)
        self._count = state.rows if self._is_self else state.sources
        sequence_first = one_of("layout", LAYOUTS, layout)
        self._kind: _tensors.Kind = _tensors.NUMPY
        self._code = 0
        arrays = [self._view(name, value, sequence_first) for name, value in zip("qkv", tensors)]
        if (arrays[1] is None) != (arrays[2] is None):
            raise InvalidArgument.of("v" if arrays[2] is None else "k", "k and v, or neither", "one of them")
        self._tensors = [
            (number, array) for number, array in zip((_wire.Q, _wire.K, _wire.V), arrays) if array is not None
        ]
        heads, sequence = (2, 1) if sequence_first else (1, 2)
        kv_heads = self._layer.kv_heads or self._layer.heads
        value_dim = self._layer.value_head_dim or self._layer.head_dim
        self._header = session_pb2.SessionStep(
            layer=self._index,
            layout=2 if sequence_first else 1,  # type: ignore[arg-type]
            dtype=self._code,  # type: ignore[arg-type]
            product_precision=precision_number(product_precision),  # type: ignore[arg-type]
            return_log_sum_exp=bool(return_log_sum_exp),
        )
        self._output_code = self._code if output_dtype is None else _dtypes.parse("output_dtype", output_dtype)
        self._header.output_dtype = self._output_code  # type: ignore[assignment]
        self._output_shape: Optional[Tuple[int, ...]] = None
        q, k, v = arrays
        if q is not None:
            self._header.query_length = q.shape[sequence]
            _check_sizes("q", q, state.rows, self._layer.heads, self._layer.head_dim, heads, sequence)
            self._output_shape = (*q.shape[:3], value_dim)
            self._kind.check_result(self._output_code)
        if k is not None and v is not None:
            self._header.key_length = k.shape[sequence]
            _check_sizes("k", k, self._count, kv_heads, self._layer.head_dim, heads, sequence)
            _check_sizes("v", v, self._count, kv_heads, value_dim, heads, sequence)
            if v.shape[sequence] != k.shape[sequence]:
                raise InvalidArgument.of("v.sequence", f"{k.shape[sequence]} as k has", str(v.shape[sequence]))

    def _view(self, name: str, value: Any, sequence_first: bool) -> Optional[np.ndarray[Any, Any]]:
        if value is None:
            return None
        tensor = _tensors.view(name, value, sequence_first)
        if self._code == 0:
            self._kind, self._code = tensor.kind, tensor.code
        elif tensor.code != self._code:
            raise InvalidArgument.of(
                f"{name}.dtype", f"{_dtypes.NAMES[self._code]} as the others have", _dtypes.NAMES[tensor.code]
            )
        return tensor.array

    def say(
        self,
        reorder: Any,
        truncate: Any,
        expected_lengths: Any,
        key_starts: Any,
        key_mask: Any,
        key_lengths: Any,
        query_lengths: Any,
        timeout: float,
    ) -> None:
        rows, header = self._state.rows, self._header
        header.reorder.extend(_masks.each_sequence("reorder", reorder, rows, 0, rows - 1))
        header.truncate.extend(_masks.each_sequence("truncate", truncate, rows, 0, 2**63 - 1))
        header.key_starts.extend(_masks.each_sequence("key_starts", key_starts, rows, 0, _MAX_POSITION))
        if hasattr(expected_lengths, "__index__") and not np.ndim(expected_lengths):
            header.expected_lengths.append(integer("expected_lengths", expected_lengths))
        else:
            header.expected_lengths.extend(
                _masks.each_sequence("expected_lengths", expected_lengths, self._count, 0, 2**63 - 1)
            )
        if key_mask is not None:
            self._say_mask(key_mask)
        most = header.key_length
        header.key_lengths.extend(_masks.each_sequence("key_lengths", key_lengths, self._count, 0, most))
        most = header.query_length
        header.query_lengths.extend(_masks.each_sequence("query_lengths", query_lengths, rows, 0, most))
        if timeout != math.inf:
            header.timeout.seconds = max(0, int(timeout))
            header.timeout.nanos = max(0, int((timeout - int(timeout)) * 1e9))

    def _say_mask(self, key_mask: Any) -> None:
        sources = self._state.sources
        array = _tensors.whole_numbers("key_mask", key_mask)
        if array.ndim != 2 or array.shape[0] != sources or array.shape[1] < 1:
            expected = f"sizes [{sources}, n] (sources, tokens)"
            raise InvalidArgument.of("key_mask", expected, f"sizes {list(array.shape)}")
        n = int(array.shape[1])
        # Empty where all are true: a mask that was given before is to go.
        self._header.key_bits = _masks.key_bits(key_mask, sources, n) or b"\xff" * (sources * -(-n // 8))
        self._header.key_bits_length = n

    def message(self) -> bytes:
        """With the session's next number: called when it is this step's turn."""
        self._header.step = self._state.next_step
        request = session_pb2.SessionRequest(step=self._header)
        return _wire.join(request.SerializeToString(), self._tensors)

    def reply(self, reply: Any, tensors: Dict[int, memoryview]) -> StepReply:
        """Raises the step's error."""
        if not reply.HasField("result") or reply.result.step != self._header.step:
            raise not_an_answer("it is none to the step")
        result = reply.result
        if result.code != 0:
            raise error_in(result)
        output = log_sum_exp = None
        if self._output_shape is not None:
            if result.dtype != self._output_code:
                raise not_an_answer(f"dtype: expected {_dtypes.NAMES[self._output_code]}, got {result.dtype}")
            array = placed("output", tensors.get(_wire.OUTPUT), self._output_shape, self._output_code, None)
            output = self._kind.result(array, self._output_code)
            if self._header.return_log_sum_exp:
                log_sum_exp = self._log_sum_exp(tensors)
        return StepReply(
            output,
            log_sum_exp,
            tuple(result.lengths),
            result.used_bytes,
            result.queue_time.seconds + result.queue_time.nanos / 1e9,
            result.compute_time.seconds + result.compute_time.nanos / 1e9,
        )

    def _log_sum_exp(self, tensors: Dict[int, memoryview]) -> Any:
        shape = (self._state.rows, self._layer.heads, self._header.query_length)
        array = placed("log_sum_exp", tensors.get(_wire.LOG_SUM_EXP), shape, _dtypes.FP32, None)
        return self._kind.result(array, _dtypes.FP32)


def _check_sizes(
    name: str, array: np.ndarray[Any, Any], count: int, heads: int, dim: int, heads_axis: int, sequence_axis: int
) -> None:
    expected: List[Any] = [count, 0, 0, dim]
    expected[heads_axis], expected[sequence_axis] = heads, "n"
    got = list(array.shape)
    fits = (got[0], got[heads_axis], got[3]) == (count, heads, dim) and got[sequence_axis] >= 1
    if not fits:
        raise InvalidArgument.of(name, f"sizes [{', '.join(map(str, expected))}]", f"sizes {got}")
