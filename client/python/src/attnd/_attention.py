"""Attention calls as operations: one call, one call in pieces, or many calls."""

from __future__ import annotations

from functools import partial
from itertools import chain, islice
from typing import Any, Iterable, List, Union

import numpy as np

from attnd import _pieces, _stream, _wire
from attnd._answer import answer_of, empty, reply_of
from attnd._core import Core
from attnd._deadline import Deadline
from attnd._dtypes import FP32
from attnd._operation import Io, Metadata, Operation
from attnd._request import Call, ComputeReply, ComputeRequest
from attnd._transport import COMPUTE, Answer, NotTaken
from attnd.errors import Aborted, Error, InvalidArgument
from attnd.v1 import attention_pb2

GRPC = "grpc"

# How often a call is sent in pieces if the model is replaced while they are computed. Then it is sent whole.
_MAX_MIXED = 2


def compute(
    core: Core, io: Io, request: ComputeRequest, deadline: Deadline, metadata: Metadata
) -> Operation[ComputeReply]:
    """Makes one call, over the first transport that takes it."""
    return (yield from _compute_call(core, io, Call.of(request), deadline, metadata))


def _compute_call(core: Core, io: Io, call: Call, deadline: Deadline, metadata: Metadata) -> Operation[ComputeReply]:
    for transport in core.transports:
        if transport.takes(call):
            try:
                attempt = partial(transport.attempt, io, call, deadline, metadata)
                answer = yield from core.repeated(io, deadline, attempt)
                return reply_of(call, answer, transport.name)
            except NotTaken:
                pass
    answer = yield from _by_grpc(core, io, call, deadline, metadata)
    return reply_of(call, answer, GRPC)


def width_of(core: Core) -> int:
    """How many calls are sent concurrently: enough to keep a server busy while others are copied, and to reach several
    servers."""
    return max(4 * core.options.channels, 8 if core.options.load_balancing == "round_robin" else 1)


def compute_many(
    core: Core,
    io: Io,
    requests: Iterable[ComputeRequest],
    return_errors: bool,
    deadline: Deadline,
    metadata: Metadata,
) -> Operation[List[Union[ComputeReply, Error]]]:
    """Makes many calls; results in order. Over gRPC they are sent on streams; over other transports each is a call of
    its own, several at once."""
    try:
        source = iter(requests)
    except TypeError:
        raise InvalidArgument.of("requests", "attnd.ComputeRequests", f"a {type(requests).__qualname__}") from None
    first = list(islice(source, 2))
    if len(first) == 1:
        # A single call is sent in pieces if it is large, since no other call keeps the server busy.
        try:
            return [(yield from compute(core, io, first[0], deadline, metadata))]
        except Error as error:
            if not return_errors:
                raise
            return [error]
    source = chain(first, source)
    if not core.transports and core.has_streams:
        job = _stream.Job(source, return_errors, GRPC)
        try:
            return (yield from _stream.compute_many(core, io, job, deadline, metadata))
        except _stream.NoStreams:
            core.has_streams = False
            return (yield from _unanswered(core, io, job, deadline, metadata))

    def start(request: ComputeRequest, branch: Io) -> Operation[ComputeReply]:
        return compute(core, branch, request, deadline, metadata)

    starts = (partial(start, request) for request in source)
    replies: List[Union[ComputeReply, Error]] = yield lambda: io.together(starts, width_of(core), not return_errors)
    return replies


def _unanswered(
    core: Core, io: Io, job: _stream.Job, deadline: Deadline, metadata: Metadata
) -> Operation[List[Union[ComputeReply, Error]]]:
    """Makes the calls of a job that no stream has answered, each as a call of its own."""

    def start(item: _stream.Item, branch: Io) -> Operation[None]:
        index, call = item
        try:
            job.put(index, (yield from _compute_call(core, branch, call, deadline, metadata)))
        except Error as error:
            if not job.return_errors:
                raise
            job.put(index, error)

    starts = (partial(start, item) for item in iter(job.take, None))
    yield lambda: io.together(starts, width_of(core), True)
    job.check()
    return job.results(None)


def _by_grpc(core: Core, io: Io, call: Call, deadline: Deadline, metadata: Metadata) -> Operation[Answer]:
    ranges = _pieces.cut(call) if io.parallel and _pieces.call_bytes(call) >= 2 * _pieces.PIECE_BYTES else []
    if len(ranges) > 1:
        for _ in range(_MAX_MIXED):
            try:
                return (yield from _in_pieces(core, io, call, ranges, deadline, metadata))
            except Aborted:
                pass

    def attempt() -> Operation[Answer]:
        payload = _wire.join(call.header_bytes(), ((_wire.Q, call.q), (_wire.K, call.k), (_wire.V, call.v)))
        message: bytes = yield lambda: io.unary(COMPUTE, payload, deadline, metadata)
        return answer_of(call, message)

    return (yield from core.repeated(io, deadline, attempt))


def _in_pieces(
    core: Core, io: Io, call: Call, ranges: List[_pieces.Range], deadline: Deadline, metadata: Metadata
) -> Operation[Answer]:
    """Makes a call in pieces. Each piece is a call of its own, which may go to any server and is repeated by itself. If
    a piece fails, the call fails and the other pieces are cancelled."""
    # If the output overlaps q, k or v, an early result must not overwrite inputs that are still to be sent.
    in_place = call.out is not None and not call.out_overlaps
    output = call.out if in_place and call.out is not None else empty(call.output_shape, call.output_code)
    shape = call.log_sum_exp_shape
    log_sum_exp = None if shape is None else empty(shape, FP32)

    def compute_piece(piece_range: _pieces.Range, branch: Io) -> Operation[attention_pb2.ComputeAttentionResponse]:
        piece = _pieces.Piece(call, piece_range, output)

        def attempt() -> Operation[attention_pb2.ComputeAttentionResponse]:
            payload = piece.payload()
            message: bytes = yield lambda: branch.unary(COMPUTE, payload, deadline, metadata)
            answer = answer_of(piece, message)
            if log_sum_exp is not None and answer.log_sum_exp is not None:
                piece.place_log_sum_exp(log_sum_exp, answer.log_sum_exp)
            return answer.message

        return core.repeated(branch, deadline, attempt)

    starts = [partial(compute_piece, piece_range) for piece_range in ranges]
    messages: List[Any] = yield lambda: io.together(starts, min(width_of(core), len(starts)), True)
    if call.out is not None and not in_place:
        np.copyto(call.out, output)
        output = call.out
    return Answer(_merged(call, messages), output, log_sum_exp)


def _merged(
    call: Call, messages: List[attention_pb2.ComputeAttentionResponse]
) -> attention_pb2.ComputeAttentionResponse:
    whole = messages[0]
    if any(message.content_hash != whole.content_hash for message in messages):
        raise Aborted(f'model "{call.request.model}" was replaced while the pieces of the call were computed')
    compute_seconds = sum(m.compute_time.seconds for m in messages)
    compute_nanos = sum(m.compute_time.nanos for m in messages)
    queue = max(messages, key=lambda m: (m.queue_time.seconds, m.queue_time.nanos)).queue_time
    whole.queue_time.CopyFrom(queue)
    whole.compute_time.seconds = compute_seconds + compute_nanos // 10**9
    whole.compute_time.nanos = compute_nanos % 10**9
    return whole
