"""The transports to a server on the same host: the local socket, and gRPC with tensors in shared memory."""

from __future__ import annotations

import asyncio
import math
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Tuple, Union
from weakref import WeakSet

import numpy as np

from attnd import _dtypes, _wire
from attnd._answer import check_small, parse_small, placed
from attnd._deadline import Deadline
from attnd._duplex import Duplex
from attnd._local import Keepalive, LocalDoor
from attnd._local_session import BlockingLocalSession
from attnd._operation import Io, Metadata, Operation
from attnd._options import Options
from attnd._regions import RegionKeeper
from attnd._request import Call
from attnd._session_door import SessionDoor
from attnd._shm import SharedMemory
from attnd._staging import Staged, Stager
from attnd._status import error_in
from attnd._transport import COMPUTE, Answer, NotTaken, Transport
from attnd.errors import Error, FailedPrecondition
from attnd.v1 import attention_pb2, local_pb2, session_pb2

if TYPE_CHECKING:
    from attnd._local_async import AsyncLocalDoor

    Array = np.ndarray[Any, Any]

LOCAL, SHARED = "local", "shared_memory"

# The local socket's path is the Unix socket's path with this suffix.
_SUFFIX = ".shm"
# How often a call is sent again because the server did not know its memory, in case it restarts several times.
_MAX_UNKNOWN = 3
# At most this many bytes are copied on the event loop's thread; more are copied on another thread.
_MAX_LOOP_COPY = 1 << 20
# Sessions with more rows or sources use gRPC: a step's lists of one entry each would fill a datagram.
_MAX_SEQUENCES = 1024
# The largest opening, and the largest mask of a session's sources, in a datagram. A step's lists take the rest.
_MAX_FIELDS = 24 << 10

_hosts: WeakSet[Host] = WeakSet()


class Host:
    """What one client's same-host transports share. Thread-safe.

    Attributes:
        memory: the client's shared memory.
        stager: finds tensors in the shared memory, and copies others there.
        door: sends local calls; None if they are turned off.
        sessions: opens sessions over the local socket; None if local calls or shared memory are turned off, because
            large steps need both.
    """

    def __init__(self, path: str, options: Options, asynchronous: bool) -> None:
        keeper = RegionKeeper(path + _SUFFIX)
        self.memory = SharedMemory(keeper)
        self.stager = Stager(self.memory, enabled=options.shared_memory)
        self.door = _make_door(path, options, asynchronous, keeper) if options.local_calls else None
        self.sessions = (
            _make_session_door(path, options, asynchronous) if options.local_calls and options.shared_memory else None
        )
        # Closes even if the client is dropped without being closed.
        self._close = weakref.finalize(self, _close, self.door, self.sessions, self.memory, self.stager)
        self._close.atexit = False
        _hosts.add(self)

    def close(self) -> None:
        """Ends calls with Cancelled, and releases the regions at the server. Arrays in them stay. Does not block."""
        self._close()

    def abandon(self) -> None:
        """In a forked child: closes the child's copies of the parent's sockets."""
        self._close.detach()
        self.memory.keeper.abandon()
        if self.door is not None:
            self.door.abandon()
        if self.sessions is not None:
            self.sessions.abandon()


def _make_door(
    path: str, options: Options, asynchronous: bool, keeper: RegionKeeper
) -> Union[LocalDoor, AsyncLocalDoor]:
    keepalive = Keepalive(options.keepalive_time, options.keepalive_timeout)
    if not asynchronous:
        return LocalDoor(path + _SUFFIX, options.user_agent, keeper.check, keepalive)
    from attnd._local_async import AsyncLocalDoor  # noqa: PLC0415 - which takes asyncio along

    return AsyncLocalDoor(path + _SUFFIX, options.user_agent, keeper.check, keepalive)


def _make_session_door(path: str, options: Options, asynchronous: bool) -> SessionDoor:
    keepalive = Keepalive(options.keepalive_time, options.keepalive_timeout)
    if not asynchronous:
        return SessionDoor(path + _SUFFIX, options.user_agent, keepalive, BlockingLocalSession)
    from attnd._local_session_async import AwaitingLocalSession  # noqa: PLC0415 - which takes asyncio along

    return SessionDoor(path + _SUFFIX, options.user_agent, keepalive, AwaitingLocalSession)


def _close(
    door: Union[LocalDoor, AsyncLocalDoor, None],
    sessions: Optional[SessionDoor],
    memory: SharedMemory,
    stager: Stager,
) -> None:
    if door is not None:
        door.close()
    if sessions is not None:
        sessions.close()
    stager.pool.close()
    memory.close()


def _after_fork_in_child() -> None:
    for host in list(_hosts):
        host.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)


def transports(path: str, options: Options, asynchronous: bool) -> List[Transport]:
    """The transports of a client with these options whose server's Unix socket is at ``path``, the best first."""
    host = Host(path, options, asynchronous)
    found: List[Transport] = []
    if host.door is not None:
        found.append(_LocalTransport(host, host.door))
    if options.shared_memory:
        found.append(_SharedTransport(host, asynchronous))
    return found


class _HostTransport(Transport):
    def __init__(self, host: Host) -> None:
        self._host = host

    def memory(self) -> Optional[Callable[[int], Array]]:
        return self._host.memory.empty if self._host.stager.enabled else None

    def close(self) -> None:
        self._host.close()


class _LocalTransport(_HostTransport):
    """Calls over the local socket, through a LocalDoor, which blocks, or an AsyncLocalDoor."""

    name = LOCAL

    def __init__(self, host: Host, door: Union[LocalDoor, AsyncLocalDoor]) -> None:
        super().__init__(host)
        self._door = door
        self._stage: Callable[..., Any] = _stage if isinstance(door, LocalDoor) else _stage_in_loop

    def ready(self) -> bool:
        if isinstance(self._door, LocalDoor):
            return self._door.worth_trying() and self._door.offered(math.inf)
        return self._door.connected

    def takes(self, call: Call) -> bool:
        return self._door.worth_trying()

    def attempt(self, io: Io, call: Call, deadline: Deadline, metadata: Metadata) -> Operation[Answer]:
        if metadata:
            raise NotTaken  # datagrams carry no metadata
        offered: bool = yield lambda: self._door.offered(deadline.at)
        if not offered:
            raise NotTaken
        header = call.header_bytes()
        unknown = 0
        while True:
            staged: Staged = yield lambda: self._stage(self._host.stager, call, deadline.at)
            staged.unknown = unknown
            send = partial(self._door.call, header, staged.names, staged.sent, staged.sent_bytes, staged.answered_bytes)
            step = partial(send, deadline.timeout, deadline.at)
            if io.interruptible is not None:
                step = partial(step, interruptible=io.interruptible)
            answer: Optional[local_pb2.LocalAnswer] = yield step
            error = _error_in(answer)
            if error is None:
                return _finished(self._host.stager, staged, call, _result_of(answer))
            try:
                unknown = _forgotten(self._host, staged, error)
            finally:
                del error

    def duplex(
        self, opening: session_pb2.SessionOpen, deadline: Deadline, metadata: Metadata
    ) -> Operation[Optional[Duplex]]:
        door = self._host.sessions
        if metadata or door is None or not _fits_datagrams(opening):
            return None
        return (yield from door.begin(deadline.at))


def _fits_datagrams(opening: session_pb2.SessionOpen) -> bool:
    """Whether everything but the tensors of such a session's messages fits into datagrams."""
    mask_bytes = opening.sources * -(-opening.max_source_tokens // 8)
    largest = max(opening.ByteSize(), mask_bytes)
    return max(opening.rows, opening.sources) <= _MAX_SEQUENCES and largest <= _MAX_FIELDS


class _SharedTransport(_HostTransport):
    """gRPC calls whose tensors are in shared memory."""

    name = SHARED

    def __init__(self, host: Host, asynchronous: bool) -> None:
        super().__init__(host)
        self._asynchronous = asynchronous

    def ready(self) -> bool:
        keeper = self._host.memory.keeper
        return keeper.offered or (not self._asynchronous and keeper.connect())

    def takes(self, call: Call) -> bool:
        return self._host.memory.keeper.worth_trying()

    def attempt(self, io: Io, call: Call, deadline: Deadline, metadata: Metadata) -> Operation[Answer]:
        stager = self._host.stager
        stage = partial(_stage_in_loop if self._asynchronous else _stage, stager, call, deadline.at, may_send=False)
        unknown = 0
        while True:
            staged: Staged = yield stage
            staged.unknown = unknown
            payload = _wire.join(call.header_bytes() + staged.names, staged.sent)
            try:
                message: bytes = yield partial(io.unary, COMPUTE, payload, deadline, metadata)
            except FailedPrecondition as error:
                unknown = _forgotten(self._host, staged, error)
                continue
            small, tensors = _wire.split(message)
            result = parse_small(call, small)
            sent = (tensors.get(_wire.OUTPUT, b""), tensors.get(_wire.LOG_SUM_EXP, b""))
            return _finished(stager, staged, call, (result, *sent))


Buffer = Union[bytes, memoryview]
Result = Tuple[attention_pb2.ComputeAttentionResponse, Buffer, Buffer]


def _stage(stager: Stager, call: Call, at: float, may_send: bool = True) -> Staged:
    shape = call.log_sum_exp_shape
    staged = stager.stage(
        (call.q, call.k, call.v),
        call.out,
        call.out_overlaps,
        call.output_bytes,
        0 if shape is None else 4 * math.prod(shape),
        may_send,
        at,
    )
    if staged is None:
        raise NotTaken
    return staged


async def _stage_in_loop(stager: Stager, call: Call, at: float, may_send: bool = True) -> Staged:
    if stager.waits_for_nothing((call.q, call.k, call.v), call.out, _MAX_LOOP_COPY):
        return _stage(stager, call, at, may_send)
    return await asyncio.get_running_loop().run_in_executor(None, _stage, stager, call, at, may_send)


def _error_in(answer: Optional[local_pb2.LocalAnswer]) -> Optional[Error]:
    if answer is None:
        raise NotTaken
    if answer.code == 0:
        return None
    return error_in(answer)


def _forgotten(host: Host, staged: Staged, error: Error) -> int:
    """If the server did not know the call's memory, for example after a restart, forgets its handles and returns how
    often that has happened in this call. After _MAX_UNKNOWN times, and for any other error, raises `error`."""
    unknown = isinstance(error, FailedPrecondition) and error.field.endswith("_shared.region")
    if not unknown or staged.unknown >= _MAX_UNKNOWN:
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame: the cycle would keep the call's memory alive
    host.memory.keeper.forget(staged.generation)
    return staged.unknown + 1


def _result_of(answer: Optional[local_pb2.LocalAnswer]) -> Result:
    assert answer is not None
    result = answer.result
    return result, result.output, result.log_sum_exp


def _finished(stager: Stager, staged: Staged, call: Call, result: Result) -> Answer:
    """Makes the answer, with results in the caller's memory; the call's staging memory goes back to the pool."""
    message, sent_output, sent_log_sum_exp = result
    check_small(call, message)
    output = staged.output
    if output is None or output is not call.out:
        source = sent_output if output is None else output
        output = placed("output", source, call.output_shape, call.output_code, call.out)
        if staged.output is not None:
            stager.copied_out += output.nbytes
    log_sum_exp: Optional[Array] = None
    if call.log_sum_exp_shape is not None:
        source = sent_log_sum_exp if staged.log_sum_exp is None else staged.log_sum_exp
        log_sum_exp = placed("log_sum_exp", source, call.log_sum_exp_shape, _dtypes.FP32, None)
        if staged.log_sum_exp is not None:
            stager.copied_out += log_sum_exp.nbytes
    stager.finish(staged)
    return Answer(message, output, log_sum_exp)
