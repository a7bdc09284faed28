"""The blocking client's I/O over grpcio."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Callable, Iterable, Iterator, List, Optional, Set, TypeVar, Union

import grpc

from attnd._channels import Channels
from attnd._closed import closed_during_the_call, closed_error
from attnd._connection_watch import ConnectionWatch
from attnd._deadline import Deadline
from attnd._grpc_duplex import BlockingDuplex
from attnd._operation import Io, MessageStream, Metadata, Operation, run
from attnd._options import Options
from attnd._status import from_rpc_error
from attnd.errors import Cancelled, Error

T = TypeVar("T")


class BlockingIo(Io):
    """Thread-safe."""

    def __init__(self, options: Options) -> None:
        self.channels = Channels(grpc, options)
        self._watch = ConnectionWatch(self.channels.first)
        self.closed = False

    def unary(
        self, method: str, payload: bytes, deadline: Deadline, metadata: Metadata, wait_for_ready: bool = False
    ) -> bytes:
        if self.closed:
            raise closed_error()
        settings = {"timeout": deadline.left(), "metadata": metadata, "wait_for_ready": wait_for_ready}
        try:
            answer: bytes = self.channels.unary(method)(payload, **settings)
        except grpc.RpcError as error:
            raise self.error_of(error) from None
        except ValueError:  # grpcio's error for a closed channel
            if not self.closed:
                raise
            raise closed_error() from None
        return answer

    def stream(self, method: str, messages: Iterator[bytes], deadline: Deadline, metadata: Metadata) -> Any:
        """Begins a stream."""
        if self.closed:
            raise closed_error()
        return self.channels.stream(method)(messages, timeout=deadline.left(), metadata=metadata)

    def exchange(
        self, method: str, stream: MessageStream, in_flight: int, deadline: Deadline, metadata: Metadata
    ) -> None:
        with Sender(stream, in_flight) as sender:
            sender.receive(self, self.stream(method, sender.messages(), deadline, metadata))

    def duplex(self, method: str, metadata: Metadata) -> BlockingDuplex:
        return BlockingDuplex(self, method, metadata)

    def error_of(self, error: grpc.RpcError) -> Error:
        # The traceback of a call on another thread refers to the error: the cycle would keep the call's memory alive.
        error.__traceback__ = None
        if self.closed:
            return closed_during_the_call()
        return from_rpc_error(error)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def lock(self) -> threading.Lock:
        return threading.Lock()

    def reachable(self) -> bool:
        return self._watch.first_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def connected(self, deadline: Deadline, given_up: Callable[[], bool] = lambda: False) -> bool:
        """As `Io.connected`; also False once the caller has given up, which it tells with wake()."""
        return self._watch.ready(deadline, given_up)

    def wake(self) -> None:
        """After the `given_up` of a caller in connected() has changed."""
        self._watch.wake()

    def together(
        self, starts: Iterable[Callable[[Io], Operation[T]]], width: int, first_error: bool
    ) -> List[Union[T, Error]]:
        return _Group(self, starts, first_error).run(width)

    def close(self) -> None:
        self.closed = True
        self._watch.end()
        for channel in self.channels.all:
            channel.close()


class Sender:
    """Gives a stream's messages to grpcio, which requests them on its own thread."""

    def __init__(self, stream: MessageStream, in_flight: int) -> None:
        self._stream = stream
        self._free = threading.Semaphore(in_flight)
        self._over = False

    def messages(self) -> Iterator[bytes]:
        while True:
            self._free.acquire()
            message = None if self._over else self._stream.next_message()
            if message is None:
                return
            yield message

    def receive(self, io: BlockingIo, call: Any) -> None:
        """Passes answers to the stream until it ends."""
        try:
            for answer in call:
                self._stream.accept(answer)
                self._free.release()
        except grpc.RpcError as error:
            raise io.error_of(error) from None
        finally:
            call.cancel()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._over = True
        self._free.release()


def _batch_ended() -> Cancelled:
    return Cancelled("another call of the same batch failed, or the batch was interrupted")


class _Group(Io):
    """Operations that run concurrently on their own threads, and whose calls another thread can cancel."""

    parallel = False

    def __init__(self, io: BlockingIo, starts: Iterable[Callable[[Io], Operation[Any]]], first_error: bool) -> None:
        self._io = io
        self._starts = enumerate(starts)
        self._first_error = first_error
        self._results: List[Any] = []
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._calls: Set[Any] = set()
        self._connections: Set[Any] = set()
        self._over = threading.Event()
        self._failure: Optional[BaseException] = None

    def run(self, width: int) -> List[Any]:
        threads: List[threading.Thread] = []
        try:
            for _ in range(width - 1):
                start = self._next()
                if start is None:
                    break
                thread = threading.Thread(target=self._work, args=(start,), name="attnd", daemon=True)
                threads.append(thread)
                thread.start()
            self._work(self._next())
            for thread in threads:
                thread.join()
        except BaseException:
            self._end(None)
            raise
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback refers to this frame: the cycle would keep the calls' memory alive
        return self._results

    def _next(self) -> Any:
        # Not under the other lock: the caller's iterator may be slow while calls begin and end.
        with self._reading:
            if self._over.is_set():
                return None
            item = next(self._starts, None)
            if item is not None:
                self._results.append(None)
            return item

    def _work(self, item: Any) -> None:
        try:
            while item is not None:
                index, start = item
                try:
                    self._results[index] = run(start(self))
                except Error as error:
                    if self._first_error:
                        raise
                    self._results[index] = error
                item = self._next()
        except BaseException as error:
            self._end(error)
            if not isinstance(error, Exception):
                raise

    def _end(self, failure: Optional[BaseException]) -> None:
        """Cancels the calls under way. The first failure is the one that run() raises."""
        with self._lock:
            if self._failure is None and not self._over.is_set():
                self._failure = failure
            self._over.set()
            calls = list(self._calls)
            # Under the lock, so that no connection is interrupted after it has gone to another caller.
            for connection in self._connections:
                connection.interrupt()
        for call in calls:
            call.cancel()
        self._io.wake()

    def unary(
        self, method: str, payload: bytes, deadline: Deadline, metadata: Metadata, wait_for_ready: bool = False
    ) -> bytes:
        if self._io.closed:
            raise closed_error()
        settings = {"timeout": deadline.left(), "metadata": metadata, "wait_for_ready": wait_for_ready}
        try:
            call = self._io.channels.unary(method).future(payload, **settings)
        except ValueError:  # grpcio's error for a closed channel
            if not self._io.closed:
                raise
            raise closed_error() from None
        with self._cancellable(call):
            try:
                answer: bytes = call.result()
            except grpc.FutureCancelledError:
                raise _batch_ended() from None
            except grpc.RpcError as error:
                raise self._io.error_of(error) from None
        return answer

    def exchange(
        self, method: str, stream: MessageStream, in_flight: int, deadline: Deadline, metadata: Metadata
    ) -> None:
        with Sender(stream, in_flight) as sender:
            call = self._io.stream(method, sender.messages(), deadline, metadata)
            with self._cancellable(call):
                sender.receive(self._io, call)

    @contextlib.contextmanager
    def _cancellable(self, call: Any) -> Iterator[None]:
        """A context in which the call is cancelled if the group ends early."""
        with self._lock:
            self._calls.add(call)
        if self._over.is_set():
            call.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._calls.discard(call)

    @contextlib.contextmanager
    def interruptible(self, connection: Any) -> Iterator[None]:
        """A context in which a connection of the local socket is interrupted if the group ends early."""
        with self._lock:
            if self._over.is_set():
                raise _batch_ended()
            self._connections.add(connection)
        try:
            yield
        except Error:
            if self._over.is_set():
                raise _batch_ended() from None
            raise
        finally:
            with self._lock:
                self._connections.discard(connection)

    def pause(self, seconds: float) -> None:
        if self._over.wait(seconds):
            raise _batch_ended()

    def reachable(self) -> bool:
        return not self._over.is_set() and self._io.reachable()

    def connected(self, deadline: Deadline) -> bool:
        return not self._over.is_set() and self._io.connected(deadline, self._over.is_set)
