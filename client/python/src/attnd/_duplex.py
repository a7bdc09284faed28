"""The stream of a session: questions, each answered before the next is asked.

`_grpc_duplex.py` implements it over gRPC, `_local_session.py` and `_local_session_async.py` over a local socket.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple, TypeVar, Union

import numpy as np

from attnd import _wire
from attnd.errors import Error, FailedPrecondition, ResourceExhausted
from attnd.v1 import session_pb2

T = TypeVar("T")

# Fields of SessionRequest.
OPEN, STEP, RESUME, CLOSE = 1, 2, 4, 5

ENDED = "the server ended the session before it had answered"
INTERRUPTED = "the session was interrupted"
LATE = "the server did not answer in time, and the session was given up"
# How long close() waits for the server to end the session.
CLOSE_SECONDS = 5.0
# How long after a step's timeout its session is given up.
SPARE_SECONDS = 5.0

_NAMES = {_wire.Q: "q", _wire.K: "k", _wire.V: "v"}


class Question(NamedTuple):
    """A SessionRequest in parts.

    Attributes:
        field: OPEN, STEP or RESUME.
        body: the serialised message of that field.
        tensors: field number and array of each tensor.
        output_bytes: size of the output in the answer.
        log_sum_exp_bytes: size of the log-sum-exp in the answer.
    """

    field: int
    body: bytes
    tensors: Sequence[Tuple[int, np.ndarray[Any, Any]]] = ()
    output_bytes: int = 0
    log_sum_exp_bytes: int = 0

    def too_large(self, expected: str, got: int) -> ResourceExhausted:
        """The error of a question that is too large. It names the largest of q, k and v, or the step."""
        number, size = max(((n, array.nbytes) for n, array in self.tensors), key=lambda t: t[1], default=(0, 0))
        return ResourceExhausted.of(_NAMES[number] if size > len(self.body) else "step", expected, f"{got} bytes")

    def no_memory(self) -> ResourceExhausted:
        """The error if there is no shared memory for a question's tensors."""
        size = sum(array.nbytes for _, array in self.tensors) + self.output_bytes + self.log_sum_exp_bytes
        return ResourceExhausted(f"no memory to share with the server for {size} bytes of a step")


# Makes the question; called when it can be sent at once.
Make = Callable[[], Question]
# An answer's output and log-sum-exp, by field number. Their memory is reused once Accept has returned.
Tensors = Dict[int, Union[bytes, memoryview, np.ndarray[Any, Any]]]
# Called with each message until it returns the answer.
Accept = Callable[[session_pb2.SessionReply, Tensors], Optional[T]]


def closed_session() -> FailedPrecondition:
    """The error of a step on a closed session."""
    return FailedPrecondition("the session is closed")


def patience(seconds: Optional[float]) -> float:
    """How long the client waits for the answer to a step with a timeout of `seconds` (None: none). The server enforces
    the timeout; this limit is for a server that no longer answers at all."""
    return math.inf if seconds is None else max(seconds, 0) + SPARE_SECONDS


class Duplex:
    """One stream. After an error it has ended, and every question raises that error. In the asyncio client the methods
    are coroutine functions. Thread-safe: questions take turns.

    Attributes:
        name: its transport, as `Transport.name`.
        max_message_bytes: the largest message that the server accepts, from its answer to the opening.
        resumable: whether the server keeps the session for its grace time if the stream ends without a close message.
    """

    name = "grpc"
    max_message_bytes: float = math.inf
    resumable = False
    _failure: Optional[Error] = None

    def ask(self, make: Make, accept: Accept[T], seconds: float = math.inf) -> Any:
        """Asks one question and returns its answer. An exception of `make`, or a question that is too large for the
        server (ResourceExhausted), changes nothing. Any other error, an interruption, or no answer within `seconds`
        ends the stream."""
        raise NotImplementedError

    def close(self) -> Any:
        """Ends the stream, and waits up to CLOSE_SECONDS for the server to end it too. A second close does nothing."""
        raise NotImplementedError

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
