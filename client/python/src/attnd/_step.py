"""What a session is asked: its steps, as operations for both clients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np

from attnd import _dtypes, _masks, _tensors, _wire
from attnd._answer import not_an_answer, placed
from attnd._arguments import integer, one_of
from attnd._deadline import checked_timeout
from attnd._duplex import STEP, Question, Tensors
from attnd._operation import Operation
from attnd._request import LAYOUTS, precision_number
from attnd._session import SelfLayer, State
from attnd._status import error_in
from attnd.errors import Error, InvalidArgument, ResourceExhausted
from attnd.v1 import session_pb2

_MAX_POSITION = 2**31 - 1
# Beyond a step's time until its session is given up.
_GRACE_SECONDS = 5.0
# A timeout beyond it, three thousand years, is none.
_MOST_SECONDS = 1e11


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

    All of it is optional, and nothing is half done: after an error the session is as it was before, and goes on. A step
    that is larger than the server takes is not sent: append a long prompt in several steps.

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
        ResourceExhausted: no memory for the step's message or result now; a step that is larger than the server takes
            (its ``max_request_bytes``; :meth:`Client.server_info` has it), and then ``error.field`` names the largest
            of q, k and v; or a step that changes rows and appends many tokens (which two steps can).
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
    reply: Union[StepReply, Error] = yield lambda: state.stream.ask(plan.question, plan.accept, seconds)
    if isinstance(reply, Error):
        raise reply
    return reply


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
        self._output_bytes = 0
        self._lse_shape: Tuple[int, ...] = (0,)
        q, k, v = arrays
        if q is not None:
            self._header.query_length = q.shape[sequence]
            _check_sizes("q", q, state.rows, self._layer.heads, self._layer.head_dim, heads, sequence)
            self._output_shape = (*q.shape[:3], value_dim)
            self._output_bytes = math.prod(self._output_shape) * _dtypes.SIZES[self._output_code]
            if return_log_sum_exp:
                self._lse_shape = (state.rows, self._layer.heads, q.shape[sequence])
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

    def question(self) -> Question:
        """With the session's next number: called when it is this step's turn."""
        self._header.step = self._state.next_step
        return Question(
            STEP, self._header.SerializeToString(), self._tensors, self._output_bytes, 4 * math.prod(self._lse_shape)
        )

    def accept(self, reply: session_pb2.SessionReply, tensors: Tensors) -> Union[StepReply, Error, None]:
        """What the server answered, or the error that it or this side has with the step; None: no answer yet."""
        if not self._state.answers(reply):
            return None
        result = reply.result
        if not reply.HasField("result") or result.step != self._header.step:
            raise not_an_answer("it is none to the step")
        if result.code != 0:
            return error_in(result)
        self._state.next_step = result.step + 1
        output = log_sum_exp = None
        if self._output_shape is not None:
            if result.dtype != self._output_code:
                raise not_an_answer(f"dtype: expected {_dtypes.NAMES[self._output_code]}, got {result.dtype}")
            try:
                output = self._result("output", tensors.get(_wire.OUTPUT), self._output_shape, self._output_code)
                if self._header.return_log_sum_exp:
                    array = tensors.get(_wire.LOG_SUM_EXP)
                    log_sum_exp = self._result("log_sum_exp", array, self._lse_shape, _dtypes.FP32)
            except ResourceExhausted as error:
                return error
        return StepReply(
            output,
            log_sum_exp,
            tuple(result.lengths),
            result.used_bytes,
            result.queue_time.seconds + result.queue_time.nanos / 1e9,
            result.compute_time.seconds + result.compute_time.nanos / 1e9,
        )

    def _result(self, name: str, data: Any, shape: Tuple[int, ...], code: int) -> Any:
        return self._kind.result(placed(name, data, shape, code, None), code)


def _check_sizes(
    name: str, array: np.ndarray[Any, Any], count: int, heads: int, dim: int, heads_axis: int, sequence_axis: int
) -> None:
    expected: List[Any] = [count, 0, 0, dim]
    expected[heads_axis], expected[sequence_axis] = heads, "n"
    got = list(array.shape)
    fits = (got[0], got[heads_axis], got[3]) == (count, heads, dim) and got[sequence_axis] >= 1
    if not fits:
        raise InvalidArgument.of(name, f"sizes [{', '.join(map(str, expected))}]", f"sizes {got}")
