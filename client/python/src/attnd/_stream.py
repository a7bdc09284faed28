"""Makes many calls over one or more streams (StreamAttention). Each call is answered as soon as it is done."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import Any, Deque, Dict, Iterable, Iterator, List, Optional, Tuple, Union

from attnd import _wire
from attnd._answer import check_small, not_an_answer, placed_answer, reply_of
from attnd._core import Core
from attnd._deadline import Deadline
from attnd._operation import Io, MessageStream, Metadata, Operation
from attnd._request import Call, ComputeReply, ComputeRequest
from attnd._status import error_in
from attnd.errors import Cancelled, Error, Internal, Unavailable, Unimplemented
from attnd.v1 import attention_pb2

METHOD = "/attnd.v1.AttentionService/StreamAttention"

# The most unanswered calls on one stream: enough to keep a server busy while answers travel.
_IN_FLIGHT = 8
# The number of streams with round_robin, since each stream stays on one server: enough to reach several servers.
_STREAMS_OVER_SERVERS = 8

_NO_RESPONSE = f"{_wire.NOT_AN_ANSWER}it is no StreamAttentionResponse"


class NoStreams(Exception):
    """The server has no StreamAttention: the remaining calls must be sent one by one."""


Item = Tuple[int, Call]
Result = Union[ComputeReply, Error]


class Job:
    """The calls of one compute_many: those still to be sent, and the results. Thread-safe."""

    def __init__(self, requests: Iterator[ComputeRequest], return_errors: bool, transport: str) -> None:
        self.return_errors = return_errors
        self._transport = transport
        self._requests = enumerate(requests)
        self._lock = threading.Lock()
        self._given_back: Deque[Item] = deque()
        self._results: List[Optional[Result]] = []
        self._failure: Optional[BaseException] = None

    def take(self) -> Optional[Item]:
        """The next call to send; None if there is none, or the job has failed."""
        with self._lock:
            if self._failure is not None:
                return None
            if self._given_back:
                return self._given_back.popleft()
            try:
                for index, request in self._requests:
                    self._results.append(None)
                    try:
                        return index, Call.of(request)
                    except Error as error:
                        if not self.return_errors:
                            raise
                        self._results[index] = error
            except Exception as error:  # including errors of the caller's iterator
                self._failure = error
            return None

    def give_back(self, items: Iterable[Item]) -> None:
        """Takes back calls that were not answered, to be sent again."""
        with self._lock:
            self._given_back.extend(items)

    def answered(self, item: Item, message: attention_pb2.StreamAttentionResponse, tensors: Any) -> None:
        """Stores the result of a call. Raises the call's error, unless the job returns errors."""
        index, call = item
        result: Result
        if message.code == 0:
            check_small(call, message.result)
            result = reply_of(call, placed_answer(call, message.result, tensors), self._transport)
        else:
            result = error_in(message)
            if not self.return_errors:
                raise result
        self.put(index, result)

    def put(self, index: int, result: Result) -> None:
        with self._lock:
            self._results[index] = result

    def check(self) -> None:
        """Raises the error that ended the job early, if there is one."""
        if self._failure is not None:
            raise self._failure

    def results(self, rest: Optional[Error]) -> List[Result]:
        """The results in order; `rest` for calls without an answer, including requests that were not read yet."""
        with self._lock:
            unanswered = rest if rest is not None else Cancelled("the call was not answered")
            self._results.extend(None for _ in self._requests)
            return [unanswered if result is None else result for result in self._results]


class _Stream(MessageStream):
    """The messages of one attempt at one stream."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._sent: Dict[int, Item] = {}
        self._all_sent = False
        self._over = False
        self._leaving = False  # its server is stopping
        self._answered = False
        self._refused: List[Item] = []
        self._unanswered: List[Item] = []
        self._refusal: Optional[Unavailable] = None

    def next_message(self) -> Optional[bytes]:
        item = self._job.take()
        with self._lock:
            if item is None:
                self._all_sent = True
                return None
            if self._over or self._leaving:
                self._job.give_back([item])
                return None
            index, call = item
            self._sent[index] = item
        header = attention_pb2.StreamAttentionRequest(id=index, call=call.small())
        return _wire.join(header.SerializeToString(), ((_wire.Q, call.q), (_wire.K, call.k), (_wire.V, call.v)))

    def accept(self, message: bytes) -> None:
        self._answered = True
        small, tensors = _wire.split(message)
        answer = _wire.parse(attention_pb2.StreamAttentionResponse, small, _NO_RESPONSE)
        with self._lock:
            item = self._sent.pop(answer.id, None)
            self._leaving = self._leaving or answer.going_away
        if item is None:
            raise not_an_answer(f"it is to piece {answer.id}, which was not asked")
        if answer.code == Unavailable.code.value[0]:
            self._refused.append(item)
            self._refusal = Unavailable(answer.message)
        else:
            self._job.answered(item, answer, tensors)

    def end(self) -> None:
        """Called at the stream's end: gives back the calls that were not answered."""
        with self._lock:
            self._over = True
            self._unanswered, self._sent = list(self._sent.values()), {}
        self._job.give_back([*self._refused, *self._unanswered])

    def is_unknown(self, error: Error) -> bool:
        """Whether the stream failed because the server has no such method."""
        return isinstance(error, Unimplemented) and not self._answered

    def check(self) -> None:
        """Called after the stream has ended without an error. Raises Unavailable if the server refused calls, so that
        they are repeated, and Internal if calls were not answered."""
        self._job.check()
        if self._leaving and not self._all_sent and self._refusal is None:
            self._refusal = Unavailable("the server is stopping")
        if self._unanswered or not (self._all_sent or self._leaving):
            raise Internal("the server ended the stream before it had answered all calls")
        if self._refusal is not None:
            raise self._refusal


def compute_many(core: Core, io: Io, job: Job, deadline: Deadline, metadata: Metadata) -> Operation[List[Result]]:
    """Makes the calls of a job. Raises the first error, unless the job returns errors; and NoStreams."""
    errors: List[Error] = []

    def one_stream(branch: Io) -> Operation[None]:
        try:
            yield from core.repeated(branch, deadline, partial(_attempt, branch, job, deadline, metadata))
        except Error as error:
            if not job.return_errors:
                raise
            errors.append(error)

    count = core.options.channels
    if core.options.load_balancing == "round_robin":
        count = max(count, _STREAMS_OVER_SERVERS)
    if count == 1:
        yield from one_stream(io)
    else:
        yield lambda: io.together([one_stream] * count, count, True)
    job.check()
    return job.results(errors[0] if errors else None)


def _attempt(io: Io, job: Job, deadline: Deadline, metadata: Metadata) -> Operation[None]:
    stream = _Stream(job)
    try:
        yield lambda: io.exchange(METHOD, stream, _IN_FLIGHT, deadline, metadata)
    except Error as error:
        if stream.is_unknown(error):
            raise NoStreams from None
        raise
    finally:
        stream.end()
    stream.check()
