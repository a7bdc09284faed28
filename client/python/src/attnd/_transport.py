"""Transports: the interface between attention calls and the ways in which they reach a server.

A client has a list of transports, the best first; they are implemented in `_host.py`. A call uses the first one that
takes it. gRPC (`_attention.py`) takes every call; it comes last and is not in the list. To add a transport:

1. Subclass `Transport`. `takes` decides from the call and from what is known of the server, without I/O.
2. `attempt` is an operation (`_operation.py`): its steps block in the blocking client and are awaited in the asyncio
   client. Everything that does I/O must therefore exist in both forms; `Io.unary` is gRPC in both.
3. Create it in `ways_on_this_host` (`_client.py`), which runs once for each client.

What an attempt uses of a `Call` (`_request.py`): `call.q`, `call.k`, `call.v` are numpy views with the wire's axes and
any strides; `call.header_bytes()` is the ComputeAttentionRequest without tensors, to which fields can be appended;
`call.output_shape`, `call.output_code` and `call.log_sum_exp_shape` describe the results; `call.out` is the caller's
memory to write to, or None. `answer_of` (`_answer.py`) checks an answer and copies its tensors.

The caller (`_attention.py`) handles retries, metadata, the token and everything before the first attempt. An attempt
sends the call once, ends by `deadline`, and raises the server's error as an Error.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from attnd._deadline import Deadline
from attnd._duplex import Duplex
from attnd._operation import Io, Metadata, Operation
from attnd._request import Call
from attnd.v1 import attention_pb2, session_pb2

# The method of all calls over gRPC.
COMPUTE = "/attnd.v1.AttentionService/ComputeAttention"


class NotTaken(Exception):
    """The transport is not available (any more). The call was not begun, and uses the next transport."""


class Answer(NamedTuple):
    """A server's answer to a call.

    Attributes:
        message: the small fields.
        output: of shape `call.output_shape`, with the dtype of `_dtypes.STORAGE`; `call.out` itself if that is set.
            Writable, and not shared with anything else.
        log_sum_exp: float32, of shape `call.log_sum_exp_shape`; None if it was not asked for.
    """

    message: attention_pb2.ComputeAttentionResponse
    output: np.ndarray[Any, Any]
    log_sum_exp: Optional[np.ndarray[Any, Any]]


class Transport:
    """One transport of a client. Thread-safe in the blocking client.

    Attributes:
        name: the value of ComputeReply.transport.
    """

    name: str

    def takes(self, call: Call) -> bool:
        """Whether to try this transport for the call. Does no I/O."""
        raise NotImplementedError

    def attempt(self, io: Io, call: Call, deadline: Deadline, metadata: Metadata) -> Operation[Answer]:
        """Sends the call once. Raises an Error, or NotTaken."""
        raise NotImplementedError

    def duplex(
        self, opening: session_pb2.SessionOpen, deadline: Deadline, metadata: Metadata
    ) -> Operation[Optional[Duplex]]:
        """Begins a stream for a session that is to be opened or resumed; None if this transport does not support such a
        session."""
        return None
        yield

    def ready(self) -> bool:
        """Whether the transport is available. The blocking client asks the server if that is not known yet."""
        raise NotImplementedError

    def memory(self) -> Optional[Callable[[int], np.ndarray[Any, Any]]]:
        """A function that allocates an array of n bytes that this transport does not copy; None if there is none."""
        return None

    def close(self) -> None:
        """Ends calls under way with Cancelled, and frees everything, without blocking. A second call does nothing."""
        raise NotImplementedError
