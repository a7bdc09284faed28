"""Checks a server's answer to an attention call, and copies its tensors to their destination."""

from __future__ import annotations

import math
from typing import Any, Dict, Optional, Protocol, Tuple

import numpy as np

from attnd import _dtypes, _wire
from attnd._request import Call, ComputeReply
from attnd._transport import Answer
from attnd.errors import Internal, ResourceExhausted
from attnd.v1 import attention_pb2


def not_an_answer(why: str) -> Internal:
    return Internal(f"{_wire.NOT_AN_ANSWER}{why}")


_NO_RESPONSE = f"{_wire.NOT_AN_ANSWER}it is no ComputeAttentionResponse"


class Expected(Protocol):
    """Those attributes of a `Call` that its answer must match."""

    output_code: int
    output_shape: Tuple[int, ...]
    log_sum_exp_shape: Optional[Tuple[int, ...]]
    out: Optional[np.ndarray[Any, Any]]


def answer_of(call: Expected, message: bytes) -> Answer:
    """Reads a serialised ComputeAttentionResponse. Its tensors are copied once: the output to `call.out`, or to new
    memory.

    Raises Internal if the bytes are not an answer to `call`."""
    small, tensors = _wire.split(message)
    return placed_answer(call, parse_small(call, small), tensors)


def placed_answer(
    call: Expected, parsed: attention_pb2.ComputeAttentionResponse, tensors: Dict[int, memoryview]
) -> Answer:
    """As `answer_of`, for a response whose small fields are parsed and checked already."""
    output = placed("output", tensors.get(_wire.OUTPUT), call.output_shape, call.output_code, call.out)
    log_sum_exp = None
    if call.log_sum_exp_shape is not None:
        log_sum_exp = placed("log_sum_exp", tensors.get(_wire.LOG_SUM_EXP), call.log_sum_exp_shape, _dtypes.FP32, None)
    return Answer(parsed, output, log_sum_exp)


def parse_small(call: Expected, small: bytes) -> attention_pb2.ComputeAttentionResponse:
    """Parses and checks the fields other than the tensors. Raises Internal."""
    kind = attention_pb2.ComputeAttentionResponse
    parsed: attention_pb2.ComputeAttentionResponse = _wire.parse(kind, small, _NO_RESPONSE)
    check_small(call, parsed)
    return parsed


def check_small(call: Expected, parsed: attention_pb2.ComputeAttentionResponse) -> None:
    """Raises Internal if the small fields are not an answer to `call`."""
    if parsed.dtype != call.output_code:
        raise not_an_answer(f"dtype: expected {_dtypes.NAMES[call.output_code]}, got {parsed.dtype}")


def empty(shape: Tuple[int, ...], code: int) -> np.ndarray[Any, Any]:
    """Allocates memory for a result. Raises ResourceExhausted."""
    try:
        return np.empty(shape, _dtypes.STORAGE[code])
    except MemoryError:
        size = math.prod(shape) * _dtypes.SIZES[code]
        raise ResourceExhausted(f"no memory for {size} bytes of output") from None


def reply_of(call: Call, answer: Answer, transport: str) -> ComputeReply:
    """Makes the caller's reply of an answer."""
    message = answer.message
    return ComputeReply(
        output=call.output(answer.output),
        log_sum_exp=None if answer.log_sum_exp is None else call.log_sum_exp(answer.log_sum_exp),
        version=message.version,
        content_hash=message.content_hash,
        queue_time=message.queue_time.seconds + message.queue_time.nanos / 1e9,
        compute_time=message.compute_time.seconds + message.compute_time.nanos / 1e9,
        transport=transport,
    )


def placed(
    name: str, data: Any, shape: Tuple[int, ...], code: int, out: Optional[np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    """Copies a result's bytes to `out` or to new memory. Raises Internal if they are missing or of the wrong number."""
    if data is None:
        raise not_an_answer(f"it has no {name}")
    size = math.prod(shape) * _dtypes.SIZES[code]
    if len(data) != size:
        raise not_an_answer(f"{name}: expected {size} bytes, got {len(data)}")
    if out is None:
        out = empty(shape, code)
    np.copyto(out, np.frombuffer(data, _dtypes.STORAGE[code]).reshape(shape))
    return out
