"""A stream of questions, each answered before the next is asked: a session as its operations see it.

`_grpc_duplex.py` has it over gRPC, `_local_session.py` and `_local_session_async.py` over a local socket.
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
# How long a server may take to end a session.
CLOSE_SECONDS = 5.0
# Beyond a step's time until its session is given up.
SPARE_SECONDS = 5.0

_NAMES = {_wire.Q: "q", _wire.K: "k", _wire.V: "v"}


class Question(NamedTuple):
    """A SessionRequest in parts.

    Attributes:
        field: OPEN, STEP or RESUME.
        body: the serialised message of that field.
        tensors: field number and array of each tensor.
        output_bytes: of the output that the answer has.
        log_sum_exp_bytes: of its log-sum-exp.
    """

    field: int
    body: bytes
    tensors: Sequence[Tuple[int, np.ndarray[Any, Any]]] = ()
    output_bytes: int = 0
    log_sum_exp_bytes: int = 0

    def too_large(self, expected: str, got: int) -> ResourceExhausted:
        """The error of a question that has too many bytes. It names what has most of them."""
        number, size = max(((n, array.nbytes) for n, array in self.tensors), key=lambda t: t[1], default=(0, 0))
        return ResourceExhausted.of(_NAMES[number] if size > len(self.body) else "step", expected, f"{got} bytes")

    def no_memory(self) -> ResourceExhausted:
        """The error of a question for which there is no memory to share with the server."""
        size = sum(array.nbytes for _, array in self.tensors) + self.output_bytes + self.log_sum_exp_bytes
        return ResourceExhausted(f"no memory to share with the server for {size} bytes of a step")


# Makes the question, which may be asked at once.
Make = Callable[[], Question]
# An answer's output and log-sum-exp, by field number. Their memory is used again once Accept has returned.
Tensors = Dict[int, Union[bytes, memoryview, np.ndarray[Any, Any]]]
# Takes what comes until it returns the answer.
Accept = Callable[[session_pb2.SessionReply, Tensors], Optional[T]]


def closed_session() -> FailedPrecondition:
    """Of a step after the session's end."""
    return FailedPrecondition("the session is closed")


def patience(seconds: Optional[float]) -> float:
    """How long a step that has so many seconds (None: for ever) waits for its answer. The server keeps the step's time;
    this is for one that answers nothing any more."""
    return math.inf if seconds is None else max(seconds, 0) + SPARE_SECONDS


class Duplex:
    """One stream. After an error it is over, and every question raises that error. In the asyncio client the methods
    are coroutine functions. Thread-safe: questions take turns.

    Attributes:
        name: how it travels, as `Transport.name`.
        max_message_bytes: the largest message that the server takes, as it says in its answer to the opening.
        resumable: whether the server keeps the session for a while if the stream ends without a word.
    """

    name = "grpc"
    max_message_bytes: float = math.inf
    resumable = False
    _failure: Optional[Error] = None

    def ask(self, make: Make, accept: Accept[T], seconds: float = math.inf) -> Any:
        """Asks one question and returns its answer. What `make` raises, and a question that the server would not take
        (ResourceExhausted), change nothing; any other error, an interruption, and an answer that has not come after
        `seconds`, end the stream."""
        raise NotImplementedError

    def close(self) -> Any:
        """Ends the stream from this side and waits for the server's end, but not for long. A second time does
        nothing."""
        raise NotImplementedError

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
