"""The steps of a session, as operations for both clients."""

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

# A longer timeout (over three thousand years) counts as none.
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
    """One step of one layer: reorders and truncates rows, appends keys and values, and attends, in this order.

    All of it is optional. A step is atomic: a step that the server refuses, or that fails there, leaves the session as
    it was, and the session continues. A step that is larger than the server accepts is not sent: append a long prompt
    in several steps.

    Args:
        layer: index in the session's layers.
        q: [rows, heads, query_length, head_dim] in ``layout``: the queries of each row's last tokens, including those
            that this step appends. None attends nothing.
        k: [rows, kv_heads, key_length, head_dim], for a cross layer [sources, ...]: keys to append. None appends
            nothing.
        v: [rows, kv_heads, key_length, value_head_dim], the values that belong to k.
        reorder: row r becomes what row ``reorder[r]`` was, in all self layers, [rows]. Nothing is copied.
        truncate: the most tokens that each row keeps, in all self layers, [rows].
        expected_lengths: tokens that rows (or sources) should have in this layer before anything is appended, one
            number for all or [rows]; a mismatch is an error.
        key_starts: first true key of each row, [rows] (padding on the left), for all self layers from now on.
        key_mask: for a cross layer: which tokens of each source are true, [sources, n], for all cross layers from now
            on.
        key_lengths: true number of keys of each row or source in k; None is all.
        query_lengths: true number of queries of each row in q; None is all. Later output rows are zeros.
        layout: order of the axes of q, k, v and the output: "bhsd" or "bshd".
        output_dtype: element type of the output; None is that of q.
        product_precision: arithmetic of the products, "float32" or "bfloat16"; None follows the dtypes.
        return_log_sum_exp: also return the natural log-sum-exp of each row's logits.
        timeout: seconds that the server may take; None is the client's, ``float("inf")`` is none.

    Raises:
        InvalidArgument: an argument is out of range; ``error.field`` names it.
        OutOfRange: a row or source would have more tokens than the session was opened for.
        FailedPrecondition: the lengths are not the expected ones; or the client is closed.
        ResourceExhausted: there is no memory for the step's message or result now (if this process has none for the
            result, the step was done); or the step is larger than the server accepts (``max_request_bytes`` in
            :meth:`Client.server_info`), and ``error.field`` names the largest of q, k and v; or the step both changes
            rows and appends many tokens (use two steps).
        DeadlineExceeded: not done within the timeout; nothing was appended. If the server does not answer within five
            more seconds, the connection is closed and the session ends.
        Aborted: the session was evicted: it was idle for too long, or too old, or an operator evicted it. With
            ``replay_evicted``: it could not be restored from its copy.
        Unavailable: the connection was lost, and the session has neither a copy nor a grace time, or could not be
            restored from them.
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
    """A step that returns only the output, or with ``return_log_sum_exp`` a pair of output and log-sum-exp. The
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
    """A step that appends without attending; returns the lengths. The arguments are those of :meth:`step`."""
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
    """Row r becomes what row ``rows[r]`` was, in all self layers. The argument ``reorder`` of a step does the same
    without an extra call."""
    yield from step(state, 0, reorder=rows)


def lengths(state: State, layer: int) -> Operation[Tuple[int, ...]]:
    """Returns the number of tokens that each row, or source, has in a layer."""
    reply = yield from step(state, layer)
    return reply.lengths
