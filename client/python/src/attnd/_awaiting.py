"""The asyncio client's I/O over grpc.aio."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, AsyncIterator, Callable, Iterable, Iterator, List, Optional, TypeVar, Union

import grpc
import grpc.aio

from attnd._channels import Channels
from attnd._closed import closed_during_the_call, closed_error
from attnd._deadline import Deadline
from attnd._grpc_duplex import WRITE_FAILED, AwaitingDuplex
from attnd._operation import Io, MessageStream, Metadata, Operation, run_async
from attnd._options import Options
from attnd._status import from_rpc_error
from attnd.errors import Error, FailedPrecondition, Unavailable, Unimplemented

T = TypeVar("T")

# See _completions_read(): fewer calls than this have too few completions to matter.
_MANY = 50


class AwaitingIo(Io):
    """Belongs to the event loop of the first call."""

    _channels: Channels
    _ended: asyncio.Event

    def __init__(self, options: Options) -> None:
        self._options = options
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._begun = 0  # gRPC calls so far
        self.closed = False

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if self.closed:
            raise closed_error()
        if self._loop is None:
            self._loop = loop
            self._ended = asyncio.Event()
            self._channels = Channels(grpc.aio, self._options)
        elif self._loop is not loop:
            raise FailedPrecondition.of("event loop", "the one of the client's first call", "another one")

    async def unary(
        self, method: str, payload: bytes, deadline: Deadline, metadata: Metadata, wait_for_ready: bool = False
    ) -> bytes:
        self._open()
        settings = {"timeout": deadline.left(), "metadata": metadata, "wait_for_ready": wait_for_ready}
        self._begun += 1
        call = self._channels.unary(method)(payload, **settings)
        with self._ends_with_the_client():
            try:
                answer: bytes = await call
            except grpc.RpcError as error:
                raise self._error_of(error) from None
        return answer

    @contextlib.contextmanager
    def _ends_with_the_client(self) -> Iterator[None]:
        """A context in which a call that is cancelled because the client is closed raises Cancelled."""
        try:
            yield
        except asyncio.CancelledError:
            if not self.closed:
                raise
            raise closed_during_the_call() from None

    def _error_of(self, error: grpc.RpcError) -> Error:
        return closed_during_the_call() if self.closed else from_rpc_error(error)

    async def duplex(self, method: str, metadata: Metadata) -> AwaitingDuplex:
        self._open()
        self._begun += 1
        return AwaitingDuplex(self._channels.stream(method)(metadata=metadata), self._error_of)

    async def exchange(
        self, method: str, stream: MessageStream, in_flight: int, deadline: Deadline, metadata: Metadata
    ) -> None:
        self._open()
        free = asyncio.Semaphore(in_flight)

        async def messages() -> AsyncIterator[bytes]:
            while True:
                await free.acquire()
                message = stream.next_message()
                if message is None:
                    return
                yield message

        answered = False
        self._begun += 1
        call = self._channels.stream(method)(messages(), timeout=deadline.left(), metadata=metadata)
        try:
            with self._ends_with_the_client():
                async for answer in call:
                    answered = True
                    stream.accept(answer)
                    free.release()
        except grpc.RpcError as error:
            lost = self._error_of(error)
            if lost.message.startswith(WRITE_FAILED):
                if not answered:
                    await self._check_method(method, deadline, metadata)
                raise Unavailable("the stream broke while a call was sent") from None
            raise lost from None
        finally:
            call.cancel()

    async def _check_method(self, method: str, deadline: Deadline, metadata: Metadata) -> None:
        """Raises Unimplemented if the server does not have the method. Opens a stream without messages: it cannot fail
        while writing, so grpc.aio does not lose its status."""
        call = self._channels.stream(method)((), timeout=deadline.left(), metadata=metadata)
        try:
            with self._ends_with_the_client():
                async for _ in call:
                    pass
        except grpc.RpcError as error:
            found = self._error_of(error)
            if isinstance(found, Unimplemented):
                raise found from None
        finally:
            call.cancel()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def lock(self) -> asyncio.Lock:
        return asyncio.Lock()

    async def reachable(self) -> bool:
        self._open()
        state: grpc.ChannelConnectivity = self._channels.first.get_state()
        return state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def connected(self, deadline: Deadline) -> bool:
        self._open()
        # Closing a channel does not wake tasks that wait for its connection.
        ready = asyncio.ensure_future(self._channels.first.channel_ready())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((ready, ended), timeout=deadline.left(), return_when=asyncio.FIRST_COMPLETED)
            return ready.done() and not self.closed
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    async def together(
        self, starts: Iterable[Callable[[Io], Operation[T]]], width: int, first_error: bool
    ) -> List[Union[T, Error]]:
        results: List[Any] = []
        remaining = enumerate(starts)
        branch = _Branch(self)

        async def work() -> None:
            for index, start in remaining:
                results.append(None)
                try:
                    results[index] = await run_async(start(branch))
                except Error as error:
                    if first_error:
                        raise
                    results[index] = error

        workers = [asyncio.ensure_future(work()) for _ in range(width)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            del worker, workers  # they refer to the error, whose traceback refers to this frame
        return results

    async def close(self) -> None:
        self.closed = True
        if self._loop is not None:
            self._ended.set()
            for channel in self._channels.all:
                await channel.close(None)
            if self._begun >= _MANY:
                await _completions_read()


async def _completions_read() -> None:
    """Waits until the loop has read the completions of calls that have just been cancelled.

    A thread of grpc.aio writes a byte for each completion into a socket that the loop reads. It blocks if some hundred
    are not read; if the loop ends then, the end of the last channel waits for that thread for ever. Completions come in
    order, and the call made here, which fails at once, has the last.
    """
    async with grpc.aio.insecure_channel("unix:/dev/null/none") as channel:
        with contextlib.suppress(grpc.RpcError):
            await channel.unary_unary("/", None, None)(b"")


class _Branch(Io):
    """The Io of operations that run concurrently."""

    parallel = False

    def __init__(self, io: AwaitingIo) -> None:
        self.unary = io.unary  # type: ignore[method-assign]
        self.exchange = io.exchange  # type: ignore[method-assign]
        self.pause = io.pause  # type: ignore[method-assign]
        self.reachable = io.reachable  # type: ignore[method-assign]
        self.connected = io.connected  # type: ignore[method-assign]
