"""Operations: what a call does, written once for the blocking and the asyncio client.

An operation is a generator. It yields steps, and is sent the result of each. A step is a function without arguments
that does I/O: in the blocking client it returns the result, in the asyncio client an awaitable of it. So the operation
itself neither blocks nor awaits; `run` and `run_async` execute it. Steps are methods of an `Io` (or of any other object
that exists in both forms), with their arguments bound:

    def ask(io: Io, payload: bytes, deadline: Deadline) -> Operation[bytes]:
        answer: bytes = yield lambda: io.unary(METHOD, payload, deadline, ())
        return answer
"""

from __future__ import annotations

from typing import Any, Callable, ContextManager, Generator, Iterable, List, Optional, Tuple, TypeVar, Union

from attnd._deadline import Deadline
from attnd.errors import Error

__all__ = ["Io", "MessageStream", "Metadata", "Operation", "Step", "run", "run_async"]

T = TypeVar("T")

Step = Callable[[], Any]
Operation = Generator[Step, Any, T]
Metadata = Tuple[Tuple[str, Union[str, bytes]], ...]


class MessageStream:
    """The messages of one stream. All methods may be called from several threads."""

    def next_message(self) -> Optional[bytes]:
        """The next message to send; None if there is none. Does not raise."""
        raise NotImplementedError

    def accept(self, message: bytes) -> None:
        """Takes an answer. An exception raised here ends the stream, and is raised by `Io.exchange`."""
        raise NotImplementedError


class Io:
    """The I/O of operations. Each method blocks or, in the asyncio client, is a coroutine function.

    Attributes:
        parallel: whether an operation may run others concurrently with `together`; not within `together`.
        interruptible: set if steps block and another thread may have to end them: makes a context in which the
            `interrupt` method of its argument may be called on any thread. None otherwise.
    """

    parallel: bool = True
    interruptible: Optional[Callable[[Any], ContextManager[None]]] = None

    def unary(
        self, method: str, payload: bytes, deadline: Deadline, metadata: Metadata, wait_for_ready: bool = False
    ) -> Any:
        """Sends one gRPC call and returns the answer's bytes. Raises an Error. With `wait_for_ready`, a call without a
        connection waits for one until its deadline."""
        raise NotImplementedError

    def exchange(
        self, method: str, stream: MessageStream, in_flight: int, deadline: Deadline, metadata: Metadata
    ) -> Any:
        """Runs one gRPC stream, on which each message gets one answer, in any order. At most `in_flight` messages are
        unanswered at a time. Returns when the stream has ended. Raises an Error."""
        raise NotImplementedError

    def duplex(self, method: str, metadata: Metadata) -> Any:
        """Begins a stream of questions and answers (`_duplex.Duplex`), without a deadline. Raises an Error."""
        raise NotImplementedError

    def pause(self, seconds: float) -> Any:
        """Waits."""
        raise NotImplementedError

    def lock(self) -> Any:
        """Makes a lock, and is not a step itself. The lock's `acquire` is a step, its `release` is not."""
        raise NotImplementedError

    def reachable(self) -> Any:
        """Whether the gRPC channel is or may become connected: False if the last attempt to connect failed."""
        raise NotImplementedError

    def connected(self, deadline: Deadline) -> Any:
        """Waits until the gRPC channel is connected; False if it is not by the deadline."""
        raise NotImplementedError

    def together(self, starts: Iterable[Callable[[Io], Operation[T]]], width: int, first_error: bool) -> Any:
        """Runs operations, at most `width` at once, each with the Io that it is started with.

        Returns their results in order, with an Error in the place of each failed one. With `first_error` the first
        Error is raised instead, and the other operations are cancelled, as they are if this is interrupted.
        """
        raise NotImplementedError

    def close(self) -> Any:
        """Ends all calls. A second call does nothing."""
        raise NotImplementedError


Results = List[Union[T, Error]]


def run(operation: Operation[T]) -> T:
    """Executes an operation on this thread."""
    try:
        step = next(operation)
        while True:
            try:
                value = step()
            except BaseException as error:
                step = operation.throw(error)
            else:
                step = operation.send(value)
    except StopIteration as done:
        result: T = done.value
        return result


async def run_async(operation: Operation[T]) -> T:
    """Executes an operation in this task."""
    try:
        step = next(operation)
        while True:
            try:
                value = await step()
            except BaseException as error:
                step = operation.throw(error)
            else:
                step = operation.send(value)
    except StopIteration as done:
        result: T = done.value
        return result
