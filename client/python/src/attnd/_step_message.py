"""Builds the message of a step and reads its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from attnd import _dtypes, _masks, _tensors, _wire
from attnd._answer import not_an_answer, placed
from attnd._arguments import integer, one_of
from attnd._duplex import STEP, Question, Tensors
from attnd._request import LAYOUTS, precision_number
from attnd._session import Layer, SelfLayer, State
from attnd._status import error_in
from attnd.errors import Error, InvalidArgument, ResourceExhausted
from attnd.v1 import session_pb2

_MAX_POSITION = 2**31 - 1
# The tag of SessionStep.step.
_NUMBER = b"\x08"
# The tag of SessionStep.timeout.
_TIMEOUT = b"\x92\x01"
# The most forms that a session caches.
_MAX_FORMS = 64

Shape = Tuple[int, ...]


@dataclass(eq=False)
class StepReply:
    """The result of a step.

    Attributes:
        output: [rows, heads, query_length, value_head_dim] in the step's layout, of the kind that went in; None without
            queries.
        log_sum_exp: float32 [rows, heads, query_length]; None if it was not asked for.
        lengths: tokens that each row (for a cross layer: each source) has in the step's layer now.
        used_bytes: bytes of the pages that the session uses now.
        queue_time: seconds from its arrival to the start of its computation.
        compute_time: seconds of its computation.
    """

    output: Any
    log_sum_exp: Any
    lengths: Tuple[int, ...]
    used_bytes: int
    queue_time: float
    compute_time: float


class Form(NamedTuple):
    """What all steps with the same settings have in common; cached, since most steps repeat an earlier one's settings.

    Attributes:
        body: the serialised fields of the message that are the same.
        output_shape, log_sum_exp_shape: shapes of what comes back; None for what does not.
        output_bytes, log_sum_exp_bytes: their sizes.
    """

    body: bytes
    key_length: int
    query_length: int
    output_code: int
    output_shape: Optional[Shape]
    log_sum_exp_shape: Optional[Shape]
    output_bytes: int
    log_sum_exp_bytes: int


class _Settings(NamedTuple):
    """The settings of a step: the key of a form in the cache."""

    layer: int
    sequence_first: bool
    q: Optional[Shape]
    k: Optional[Shape]
    v: Optional[Shape]
    code: int
    output_code: int
    precision: int
    return_log_sum_exp: bool
    timeout: float


class StepMessage:
    """The message of one step, and the check of its answer."""

    def __init__(
        self,
        state: State,
        layer: Any,
        tensors: Tuple[Any, Any, Any],
        layout: Any,
        output_dtype: Any,
        product_precision: Any,
        return_log_sum_exp: bool,
        timeout: float,
    ) -> None:
        self._state = state
        index = integer("layer", layer, 0, len(state.layers) - 1)
        self._count = state.rows if isinstance(state.layers[index], SelfLayer) else state.sources
        sequence_first = one_of("layout", LAYOUTS, layout)
        self._kind: _tensors.Kind = _tensors.NUMPY
        self._code = 0
        q, k, v = (self._view(name, value, sequence_first) for name, value in zip("qkv", tensors))
        self._tensors = [(number, x) for number, x in ((_wire.Q, q), (_wire.K, k), (_wire.V, v)) if x is not None]
        output_code = self._code if output_dtype is None else _dtypes.parse("output_dtype", output_dtype)
        if q is not None:
            self._kind.check_result(output_code)
        settings = _Settings(
            index,
            sequence_first,
            None if q is None else q.shape,
            None if k is None else k.shape,
            None if v is None else v.shape,
            self._code,
            output_code,
            precision_number(product_precision),
            return_log_sum_exp,
            timeout,
        )
        form: Optional[Form] = state.forms.get(settings)
        if form is None:
            form = _form(state.layers[index], state.rows, self._count, settings)
            if len(state.forms) >= _MAX_FORMS:
                state.forms.clear()
            state.forms[settings] = form
        self._form = form
        self._layer = index
        self._appended = [x if not sequence_first else x.transpose(0, 2, 1, 3) for x in (k, v) if x is not None]
        self._said: Optional[session_pb2.SessionStep] = None
        self._more = b""
        self._number = 0

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
    ) -> None:
        """Adds the fields that differ from row to row."""
        given = (reorder, truncate, expected_lengths, key_starts, key_mask, key_lengths, query_lengths)
        if all(value is None for value in given):
            return
        rows, form = self._state.rows, self._form
        more = session_pb2.SessionStep(
            reorder=_masks.each_sequence("reorder", reorder, rows, 0, rows - 1),
            truncate=_masks.each_sequence("truncate", truncate, rows, 0, 2**63 - 1),
            expected_lengths=self._lengths(expected_lengths),
            key_starts=_masks.each_sequence("key_starts", key_starts, rows, 0, _MAX_POSITION),
            key_lengths=_masks.each_sequence("key_lengths", key_lengths, self._count, 0, form.key_length),
            query_lengths=_masks.each_sequence("query_lengths", query_lengths, rows, 0, form.query_length),
        )
        if key_mask is not None:
            self._say_mask(key_mask, more)
        self._said = more
        self._more = more.SerializeToString()

    def _lengths(self, expected: Any) -> List[int]:
        if hasattr(expected, "__index__") and not np.ndim(expected):
            return [integer("expected_lengths", expected)]
        return _masks.each_sequence("expected_lengths", expected, self._count, 0, 2**63 - 1)

    def _say_mask(self, key_mask: Any, message: session_pb2.SessionStep) -> None:
        sources = self._state.sources
        array = _tensors.whole_numbers("key_mask", key_mask)
        if array.ndim != 2 or array.shape[0] != sources or array.shape[1] < 1:
            expected = f"sizes [{sources}, n] (sources, tokens)"
            raise InvalidArgument.of("key_mask", expected, f"sizes {list(array.shape)}")
        n = int(array.shape[1])
        # key_bits() is empty if all are true; all ones are sent then, to replace a mask that was given before.
        message.key_bits = _masks.key_bits(key_mask, sources, n) or b"\xff" * (sources * -(-n // 8))
        message.key_bits_length = n

    @property
    def form(self) -> Form:
        """What this step has in common with other steps of the same settings."""
        return self._form

    def is_step(self, number: int) -> None:
        """Sets the step's number, if the message is sent without question()."""
        self._number = number

    def shorten(self, seconds: Optional[float]) -> None:
        """Replaces the step's timeout by the seconds that are left; None leaves it as it is."""
        if seconds is not None:
            # Written even if zero: this field overrides the timeout in the form.
            value = b"\x08" + _wire.varint(int(seconds)) + b"\x10" + _wire.varint(int(seconds % 1 * 1e9))
            self._more += _TIMEOUT + bytes((len(value),)) + value

    def question(self) -> Question:
        """The question, with the session's next step number; called when it is this step's turn."""
        self._number = self._state.next_step
        form = self._form
        body = _NUMBER + _wire.varint(self._number) + form.body + self._more
        return Question(STEP, body, self._tensors, form.output_bytes, form.log_sum_exp_bytes)

    def accept(self, reply: session_pb2.SessionReply, tensors: Tensors) -> Union[StepReply, Error, None]:
        """Returns the step's result, or the error that the server or this client has with it; None if the message is
        not the answer."""
        if not self._state.answers(reply):
            return None
        result = reply.result
        if not reply.HasField("result") or result.step != self._number:
            raise not_an_answer("it is none to the step")
        if result.code != 0:
            return error_in(result)
        self._state.next_step = self._number + 1
        if self._state.log is not None:
            self._state.log.note(self._layer, self._said, self._appended, self._code)
        form = self._form
        output = log_sum_exp = None
        try:
            if form.output_shape is not None:
                if result.dtype != form.output_code:
                    raise not_an_answer(f"dtype: expected {_dtypes.NAMES[form.output_code]}, got {result.dtype}")
                output = self._result("output", tensors.get(_wire.OUTPUT), form.output_shape, form.output_code)
            if form.log_sum_exp_shape is not None:
                array = tensors.get(_wire.LOG_SUM_EXP)
                log_sum_exp = self._result("log_sum_exp", array, form.log_sum_exp_shape, _dtypes.FP32)
        except ResourceExhausted as error:
            return error
        queue, compute = result.queue_time, result.compute_time
        return StepReply(
            output,
            log_sum_exp,
            tuple(result.lengths),
            result.used_bytes,
            queue.seconds + queue.nanos / 1e9,
            compute.seconds + compute.nanos / 1e9,
        )

    def _result(self, name: str, data: Any, shape: Shape, code: int) -> Any:
        return self._kind.result(placed(name, data, shape, code, None), code)


def _form(layer: Layer, rows: int, count: int, settings: _Settings) -> Form:
    """Makes a form. Raises InvalidArgument for shapes that do not fit the session."""
    q, k, v = settings.q, settings.k, settings.v
    if (k is None) != (v is None):
        raise InvalidArgument.of("v" if v is None else "k", "k and v, or neither", "one of them")
    axes = (2, 1) if settings.sequence_first else (1, 2)
    sequence = axes[1]
    kv_heads = layer.kv_heads or layer.heads
    value_dim = layer.value_head_dim or layer.head_dim
    header = session_pb2.SessionStep(
        layer=settings.layer,
        layout=2 if settings.sequence_first else 1,  # type: ignore[arg-type]
        dtype=settings.code,  # type: ignore[arg-type]
        product_precision=settings.precision,  # type: ignore[arg-type]
        return_log_sum_exp=settings.return_log_sum_exp,
        output_dtype=settings.output_code,  # type: ignore[arg-type]
    )
    output_shape = log_sum_exp_shape = None
    if q is not None:
        _check_sizes("q", q, (rows, layer.heads, layer.head_dim), axes)
        header.query_length = q[sequence]
        output_shape = (*q[:3], value_dim)
        if settings.return_log_sum_exp:
            log_sum_exp_shape = (rows, layer.heads, q[sequence])
    if k is not None and v is not None:
        _check_sizes("k", k, (count, kv_heads, layer.head_dim), axes)
        _check_sizes("v", v, (count, kv_heads, value_dim), axes)
        if v[sequence] != k[sequence]:
            raise InvalidArgument.of("v.sequence", f"{k[sequence]} as k has", str(v[sequence]))
        header.key_length = k[sequence]
    if settings.timeout != math.inf:
        header.timeout.seconds = max(0, int(settings.timeout))
        header.timeout.nanos = max(0, int((settings.timeout - int(settings.timeout)) * 1e9))
    return Form(
        header.SerializeToString(),
        header.key_length,
        header.query_length,
        settings.output_code,
        output_shape,
        log_sum_exp_shape,
        0 if output_shape is None else math.prod(output_shape) * _dtypes.SIZES[settings.output_code],
        0 if log_sum_exp_shape is None else math.prod(log_sum_exp_shape) * _dtypes.SIZES[_dtypes.FP32],
    )


def _check_sizes(name: str, got: Shape, sizes: Tuple[int, int, int], axes: Tuple[int, int]) -> None:
    """Checks a shape against `sizes` (sequences, heads, elements); `axes` are the axes of heads and of the sequence."""
    count, heads, dim = sizes
    expected: List[Any] = [count, 0, 0, dim]
    expected[axes[0]], expected[axes[1]] = heads, "n"
    if (got[0], got[axes[0]], got[3]) != sizes or got[axes[1]] < 1:
        raise InvalidArgument.of(name, f"sizes [{', '.join(map(str, expected))}]", f"sizes {list(got)}")
