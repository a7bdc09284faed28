"""A session's stream over gRPC, for the blocking and the asyncio client."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import queue
import threading
import time
import weakref
from typing import Any, Callable, Iterator, NoReturn, Optional, Tuple, TypeVar

import grpc
import grpc.aio

from attnd import _duplex, _process, _wire
from attnd._deadline import Deadline
from attnd._duplex import CLOSE, ENDED, INTERRUPTED, LATE, Accept, Duplex, Make, Question, Tensors, closed_session
from attnd._operation import Metadata
from attnd._watch import WATCH
from attnd.errors import DeadlineExceeded, Error, Internal, Unavailable
from attnd.v1 import session_pb2

T = TypeVar("T")

# grpc.aio's error if a stream ends, for whatever reason, while it is writing: it loses the server's status.
WRITE_FAILED = "Internal error from Core"
_CLOSE = _wire.bytes_field_head(CLOSE, 0)  # SessionRequest{close {}}
_EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009 (the stubs lack it)


def _message(question: Question, most_bytes: float) -> bytes:
    """Serialises a question. Raises ResourceExhausted if it has more than `most_bytes`."""
    head = _wire.bytes_field_head(question.field, len(question.body)) + question.body
    size = len(head)
    for number, array in question.tensors:
        size += len(_wire.bytes_field_head(number, array.nbytes)) + array.nbytes
    if size > most_bytes:
        raise question.too_large(f"a step of at most {most_bytes} bytes (the server's max_request_bytes)", size)
    return _wire.join(head, question.tensors)


def _parts(message: bytes) -> Tuple[session_pb2.SessionReply, Tensors]:
    small, tensors = _wire.split(message)
    reply = _wire.parse(session_pb2.SessionReply, small, f"{_wire.NOT_AN_ANSWER}it is no SessionReply")
    return reply, {**tensors}


class BlockingDuplex(Duplex):
    """The stream over grpcio, for the blocking client."""

    def __init__(self, io: Any, method: str, metadata: Metadata) -> None:
        """`io` is a BlockingIo."""
        self._io = io
        self._questions: queue.SimpleQueue[Optional[bytes]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._late = False
        messages: Iterator[Any] = iter(self._questions.get, None)
        self._call = io.stream(method, messages, Deadline(math.inf), metadata)
        _open_streams.add(self)

    def __del__(self) -> None:
        self._questions.put(None)  # grpcio's thread waits for it

    def ask(self, make: Make, accept: Accept[T], seconds: float = math.inf) -> T:
        with self._lock:
            self._check()
            question = _message(make(), self.max_message_bytes)
            entry = None if seconds == math.inf else WATCH.add(time.monotonic() + seconds, self._give_up)
            try:
                self._questions.put(question)
                while True:
                    answer = accept(*_parts(next(self._call)))
                    if answer is not None:
                        return answer
            except grpc.RpcError as error:
                self._fail(DeadlineExceeded(LATE) if self._late else self._io.error_of(error))
            except StopIteration:
                self._fail(Internal(ENDED))
            except BaseException as error:
                self._end(error if isinstance(error, Error) else Unavailable(INTERRUPTED))
                raise
            finally:
                if entry is not None:
                    WATCH.remove(entry)

    def _give_up(self) -> None:
        self._late = True
        self._call.cancel()

    def _fail(self, error: Error) -> NoReturn:
        self._end(error)
        raise error.with_traceback(None) from None

    def _end(self, error: Error) -> None:
        self._failure = error
        self._questions.put(None)
        self._call.cancel()

    def close(self) -> None:
        if _process.forked():
            return  # the stream is the parent's
        with self._lock:
            if self._failure is not None:
                return
            self._failure = closed_session()
            if self.resumable:
                self._questions.put(_CLOSE)
            self._questions.put(None)
            entry = WATCH.add(time.monotonic() + _duplex.CLOSE_SECONDS, self._give_up)
            try:
                for _ in self._call:
                    continue
            except grpc.RpcError:
                pass
            finally:
                WATCH.remove(entry)
                self._call.cancel()


class AwaitingDuplex(Duplex):
    """The stream over grpc.aio, for the asyncio client."""

    def __init__(self, call: Any, error_of: Callable[[grpc.RpcError], Error]) -> None:
        self._call = call
        self._error_of = error_of
        self._lock = asyncio.Lock()
        _open_streams.add(self)

    async def ask(self, make: Make, accept: Accept[T], seconds: float = math.inf) -> T:
        async with self._lock:
            self._check()
            question = _message(make(), self.max_message_bytes)
            try:
                return await asyncio.wait_for(self._ask(question, accept), None if seconds == math.inf else seconds)
            except asyncio.TimeoutError:
                self._fail(DeadlineExceeded(LATE))
            except grpc.RpcError as error:
                self._fail(self._error_of(error))
            except Error as error:
                self._fail(error)
            except BaseException:
                self._end(Unavailable(INTERRUPTED))
                raise

    async def _ask(self, question: bytes, accept: Accept[T]) -> T:
        await self._write(question)
        while True:
            message = await self._call.read()
            if message is _EOF:
                raise await self._ended()
            answer = accept(*_parts(message))
            if answer is not None:
                return answer

    async def _write(self, question: bytes) -> None:
        try:
            await self._call.write(question)
        except (grpc.RpcError, asyncio.InvalidStateError):
            # grpc.aio's error hides the server's status, if that has arrived.
            if self._call.done():
                ended = await self._ended()
                if not ended.message.startswith(WRITE_FAILED):
                    raise ended from None
            raise Unavailable("the session's stream broke while a step was sent") from None

    async def _ended(self) -> Error:
        """The error with which the server ended the stream."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return Internal(ENDED)
        details = grpc.aio.AioRpcError(
            code,
            await self._call.initial_metadata(),
            await self._call.trailing_metadata(),
            details=await self._call.details(),
            debug_error_string=None,
        )
        return self._error_of(details)

    def _fail(self, error: Error) -> NoReturn:
        self._end(error)
        raise error.with_traceback(None) from None

    def _end(self, error: Error) -> None:
        self._failure = error
        self._call.cancel()

    async def close(self) -> None:
        if _process.forked():
            return  # the stream is the parent's
        async with self._lock:
            if self._failure is not None:
                return
            self._failure = closed_session()
            try:
                await asyncio.wait_for(self._drain(), _duplex.CLOSE_SECONDS)
            except (grpc.RpcError, asyncio.InvalidStateError, asyncio.TimeoutError):
                pass
            finally:
                self._call.cancel()

    async def _drain(self) -> None:
        if self.resumable:
            await self._call.write(_CLOSE)
        await self._call.done_writing()
        while await self._call.read() is not _EOF:
            continue


_open_streams: weakref.WeakSet[Duplex] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Keeps a child's copies of streams alive forever: parent and child share the connection, so that ending a copy,
    when it is dropped or the child exits, would end the parent's stream."""
    for stream in list(_open_streams):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(vars(stream)["_call"]))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
