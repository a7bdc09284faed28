"""A stream of questions, each answered before the next is asked: for the blocking and the asyncio client."""

from __future__ import annotations

import asyncio
import math
import queue
import threading
from typing import Any, Callable, Iterator, Optional, TypeVar

import grpc
import grpc.aio

from attnd._deadline import Deadline
from attnd._operation import Metadata
from attnd.errors import Error, FailedPrecondition, Internal, Unavailable

T = TypeVar("T")

# Makes the question, which may be asked at once; and takes what comes until it returns the answer to it.
Make = Callable[[], bytes]
Accept = Callable[[bytes], Optional[T]]

_EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009 (the stubs lack it)
_CLOSED = "the session is closed"
_ENDED = "the server ended the stream before it had answered"


class Duplex:
    """One stream. After an error it is over, and every question raises that error. In the asyncio client the methods
    are coroutine functions. Thread-safe: questions take turns."""

    def ask(self, make: Make, accept: Accept[T]) -> Any:
        """Asks one question and returns its answer. What `make` raises changes nothing; any other error, and an
        interruption, ends the stream."""
        raise NotImplementedError

    def close(self) -> Any:
        """Ends the stream from this side and waits for the server's end. A second time does nothing."""
        raise NotImplementedError


class BlockingDuplex(Duplex):
    """Over grpcio."""

    def __init__(self, io: Any, method: str, metadata: Metadata) -> None:
        """`io` is a BlockingIo."""
        self._io = io
        self._questions: queue.SimpleQueue[Optional[bytes]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._failure: Optional[Error] = None
        self._closed = False
        messages: Iterator[Any] = iter(self._questions.get, None)
        self._call = io.stream(method, messages, Deadline(math.inf), metadata)

    def ask(self, make: Make, accept: Accept[T]) -> T:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            question = make()
            try:
                self._questions.put(question)
                while True:
                    answer = accept(next(self._call))
                    if answer is not None:
                        return answer
            except grpc.RpcError as error:
                self._fail(self._io.error_of(error))
            except StopIteration:
                self._fail(Internal(_ENDED))
            except BaseException as error:
                self._end(error if isinstance(error, Error) else Unavailable("the session was interrupted"))
                raise
            assert self._failure is not None
            raise self._failure

    def _fail(self, error: Error) -> None:
        error.__traceback__ = None
        self._end(error)

    def _end(self, error: Error) -> None:
        self._failure = error
        self._questions.put(None)
        self._call.cancel()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._failure is None:
                self._questions.put(None)
                try:
                    for _ in self._call:
                        continue
                except grpc.RpcError:
                    pass
                self._failure = FailedPrecondition(_CLOSED)
            self._call.cancel()


class AwaitingDuplex(Duplex):
    """Over grpc.aio."""

    def __init__(self, call: Any, error_of: Callable[[grpc.RpcError], Error]) -> None:
        self._call = call
        self._error_of = error_of
        self._lock = asyncio.Lock()
        self._failure: Optional[Error] = None
        self._closed = False

    async def ask(self, make: Make, accept: Accept[T]) -> T:
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            question = make()
            try:
                await self._write(question)
                while True:
                    message = await self._call.read()
                    if message is _EOF:
                        raise await self._ended()
                    answer = accept(message)
                    if answer is not None:
                        return answer
            except grpc.RpcError as error:
                failure = self._failure = self._error_of(error)
            except Error as error:
                self._end(error)
                raise
            except BaseException:
                self._end(Unavailable("the session was interrupted"))
                raise
            self._call.cancel()
            raise failure from None

    async def _write(self, question: bytes) -> None:
        try:
            await self._call.write(question)
        except (grpc.RpcError, asyncio.InvalidStateError):
            # What grpc.aio says of it hides what the server said, if that has come.
            if self._call.done():
                raise await self._ended() from None
            raise Unavailable("the session's stream broke while a step was sent") from None

    async def _ended(self) -> Error:
        """After the server's end."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return Internal(_ENDED)
        details = grpc.aio.AioRpcError(
            code,
            await self._call.initial_metadata(),
            await self._call.trailing_metadata(),
            details=await self._call.details(),
            debug_error_string=None,
        )
        return self._error_of(details)

    def _end(self, error: Error) -> None:
        self._failure = error
        self._call.cancel()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        async with self._lock:
            if self._failure is None:
                try:
                    await self._call.done_writing()
                    while await self._call.read() is not _EOF:
                        continue
                except (grpc.RpcError, asyncio.InvalidStateError):
                    pass
                self._failure = FailedPrecondition(_CLOSED)
            self._call.cancel()
