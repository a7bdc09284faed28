"""How attention calls travel: the seam between what a call is and the ways to a server.

A client has a list of transports, the best first; those that there are stand in `_host.py`. A call goes by the first
one that takes it; gRPC (`_attention.py`) takes every call, is last, and stands outside of the list. To add a way:

1. Subclass `Transport`. `takes` looks at the call and at what is known of the server, without I/O.
2. `attempt` is an operation (`_operation.py`): steps that block in the blocking client and are awaited in the asyncio
   client. Whatever does I/O must therefore exist in both forms; `Io.unary` is gRPC in both.
3. Make it in `ways_on_this_host` (`_client.py`), which runs once for each client.

What a `Call` offers to an attempt (`_request.py`): `call.q`, `call.k`, `call.v` are numpy views with the wire's axes
and any strides; `call.header_bytes()` is the ComputeAttentionRequest without tensors, to which fields can be appended;
`call.output_shape`, `call.output_code` and `call.log_sum_exp_shape` say what comes back; `call.out` is the caller's
memory to write to, or None. Answers are checked and placed by `answer_of` (`_answer.py`).

Repeats, metadata, the token and what happens before the first attempt are the caller's (`_attention.py`): an attempt is
sent once, ends by `deadline`, and raises an Error as the server gave it.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from attnd._deadline import Deadline
from attnd._duplex import Duplex
from attnd._operation import Io, Metadata, Operation
from attnd._request import Call
from attnd.v1 import attention_pb2, session_pb2

# The method that every way by gRPC calls.
COMPUTE = "/attnd.v1.AttentionService/ComputeAttention"


class NotTaken(Exception):
    """This way is not there (any more), and the call was not begun: it takes the next one."""


class Answer(NamedTuple):
    """What a server answered.

    Attributes:
        message: the small fields.
        output: of `call.output_shape`, with the dtype that `_dtypes.STORAGE` has; `call.out` itself if that is set.
            Writable, and nobody else's.
        log_sum_exp: float32, of `call.log_sum_exp_shape`; None if it was not asked for.
    """

    message: attention_pb2.ComputeAttentionResponse
    output: np.ndarray[Any, Any]
    log_sum_exp: Optional[np.ndarray[Any, Any]]


class Transport:
    """One way to a server. Thread-safe in the blocking client.

    Attributes:
        name: as ComputeReply.transport says it.
    """

    name: str

    def takes(self, call: Call) -> bool:
        """Whether to try this way. Does no I/O."""
        raise NotImplementedError

    def attempt(self, io: Io, call: Call, deadline: Deadline, metadata: Metadata) -> Operation[Answer]:
        """Sends the call once. Raises an Error, or NotTaken."""
        raise NotImplementedError

    def duplex(
        self, opening: session_pb2.SessionOpen, deadline: Deadline, metadata: Metadata
    ) -> Operation[Optional[Duplex]]:
        """Begins a stream for a session that is yet to be opened; None if such a session does not go this way."""
        return None
        yield

    def ready(self) -> bool:
        """Whether calls go this way. In the blocking client asks the server if that is not known yet."""
        raise NotImplementedError

    def memory(self) -> Optional[Callable[[int], np.ndarray[Any, Any]]]:
        """What makes arrays (of bytes, by their number) that travel this way without a copy; None: nothing does."""
        return None

    def close(self) -> None:
        """Ends what is under way with Cancelled, and lets go of everything, without blocking. Twice is once."""
        raise NotImplementedError
