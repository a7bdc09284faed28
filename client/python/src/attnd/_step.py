"""What a session is asked: its steps, as operations for both clients."""

from __future__ import annotations

import math
from typing import Any, Optional, Sequence, Tuple, Union

from attnd._deadline import checked_timeout
from attnd._duplex import patience
from attnd._operation import Operation
from attnd._session import State
from attnd._session_recovery import ask
from attnd._step_message import StepMessage, StepReply
from attnd.errors import Error

# A timeout beyond it, three thousand years, is none.
_MOST_SECONDS = 1e11


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
        Aborted: the session was evicted, and is gone: it was idle for too long, or too old, or an operator did so. With
            ``replay_evicted``: it could not be restored by its log.
        Unavailable: the connection was lost, and the session with it: it could not be restored by its log or by its
            grace time, or it has neither.
    """
    state.core.check_open()
    timeout = checked_timeout(timeout, state.core.options.timeout)
    if timeout > _MOST_SECONDS:
        timeout = math.inf
    message = StepMessage(
        state, layer, (q, k, v), layout, output_dtype, product_precision, bool(return_log_sum_exp), timeout
    )
    message.say(reorder, truncate, expected_lengths, key_starts, key_mask, key_lengths, query_lengths)
    reply: Union[StepReply, Error]
    if state.recovery is not None:
        reply = yield from ask(state, state.recovery, message, timeout)
    else:
        reply = yield lambda: state.stream.ask(message.question, message.accept, patience(timeout))
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
