"""The sessions of both clients: the steps of `Session` block, those of `AsyncSession` are awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Coroutine, Optional, Tuple, TypeVar

from attnd import _session_recovery, _step
from attnd._as_method import as_method
from attnd._operation import Operation, run, run_async
from attnd._session import Layer, State

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")


class SessionBase:
    """The properties that both kinds of session share."""

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def layers(self) -> Tuple[Layer, ...]:
        """The layers that the session was opened with."""
        return self._state.layers

    @property
    def rows(self) -> int:
        """Number of sequences."""
        return self._state.rows

    @property
    def sources(self) -> int:
        """Number of sources that cross layers attend to."""
        return self._state.sources

    @property
    def version(self) -> int:
        """Version of the model; 0 without a model."""
        return self._state.opened.version

    @property
    def content_hash(self) -> str:
        """Content hash of that version."""
        return self._state.opened.content_hash

    @property
    def reserved_bytes(self) -> int:
        """Bytes of the server's memory that are reserved for the session until it ends."""
        return self._state.opened.reserved_bytes

    @property
    def page_tokens(self) -> int:
        """Tokens per page; the server allocates keys and values in pages."""
        return self._state.opened.page_tokens

    @property
    def transport(self) -> str:
        """How the steps travel. "local" is the local socket next to the server's Unix socket, "grpc" a gRPC stream."""
        return self._state.stream.name

    @property
    def going_away(self) -> Optional[float]:
        """Seconds that a stopping server gives its sessions, counted from its notice; None if it sent none."""
        return self._state.going_away

    @property
    def replayable(self) -> bool:
        """Whether the client has a copy of the session's keys and values. False without ``replay_bytes``, and once the
        session has outgrown it."""
        return self._state.recovery is not None and self._state.recovery.replayable

    @property
    def replay_bytes(self) -> int:
        """Bytes that the copy takes now."""
        return 0 if self._state.log is None else self._state.log.used_bytes

    @property
    def replays(self) -> int:
        """How often the session was opened again and filled from the copy."""
        return 0 if self._state.recovery is None else self._state.recovery.replays

    @property
    def resumes(self) -> int:
        """How often the session was resumed after its connection was lost, without sending the copy."""
        return 0 if self._state.recovery is None else self._state.recovery.resumes

    def __reduce__(self) -> Any:
        raise TypeError(f"an attnd.{type(self).__name__} is a connection, and is neither copied nor pickled")

    def __repr__(self) -> str:
        state = self._state
        sources = f", {state.sources} sources" if state.sources else ""
        return f"attnd.{type(self).__name__}({state.rows} rows{sources}, {len(state.layers)} layers)"


def _close(state: State) -> Operation[None]:
    if state.recovery is None:
        yield state.stream.close
    else:
        yield from _session_recovery.close(state, state.recovery)


def _blocking(operation: Callable[Concatenate[State, P], Operation[T]]) -> Callable[Concatenate[Session, P], T]:
    def method(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(operation(self._state, *args, **kwargs))

    return as_method(method, operation, "Session")


def _awaiting(
    operation: Callable[Concatenate[State, P], Operation[T]],
) -> Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_async(operation(self._state, *args, **kwargs))

    return as_method(method, operation, "AsyncSession")


class Session(SessionBase):
    """Keys and values that the server keeps; opened by :meth:`attnd.Client.session`.

    Steps may be made from several threads; they take turns. Interrupting a step (KeyboardInterrupt) ends the session.

    Example:
        >>> layers = [attnd.SelfLayer(heads=8, head_dim=64), attnd.CrossLayer(heads=8, head_dim=64)]
        >>> opened = client.session(layers, "t5-tiny", rows=4, sources=1, max_tokens=100, max_source_tokens=20)
        >>> with opened as session:  # four beams of one source
        ...     source = np.ones((1, 8, 20, 64), np.float32)
        ...     _ = session.append(1, source, source)
        ...     q, k, v = (np.ones((4, 8, 1, 64), np.float32) for _ in range(3))
        ...     _ = session.attend(0, q, k, v)
        ...     _ = session.attend(1, q)
        ...     output = session.attend(0, q, k, v, reorder=[0, 0, 1, 2])
        ...     session.lengths(0)
        (2, 2, 2, 2)
    """

    step = _blocking(_step.step)
    attend = _blocking(_step.attend)
    append = _blocking(_step.append)
    reorder = _blocking(_step.reorder)
    lengths = _blocking(_step.lengths)

    def close(self) -> None:
        """Ends the session, and frees what it keeps. A second time does nothing."""
        run(_close(self._state))

    def _grow(self, max_tokens: int) -> None:
        run(_session_recovery.grow(self._state, max_tokens))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


class AsyncSession(SessionBase):
    """The asyncio form of :class:`attnd.Session`. Cancelling the task of a step ends the session.

    Example:
        >>> async def main():
        ...     async with attnd.AsyncClient() as client:
        ...         layers = [attnd.SelfLayer(heads=8, head_dim=64)]
        ...         async with await client.session(layers, "t5-tiny", max_tokens=100) as session:
        ...             q, k, v = (np.ones((1, 8, 1, 64), np.float32) for _ in range(3))
        ...             return (await session.attend(0, q, k, v)).shape
        >>> asyncio.run(main())
        (1, 8, 1, 64)
    """

    step = _awaiting(_step.step)
    attend = _awaiting(_step.attend)
    append = _awaiting(_step.append)
    reorder = _awaiting(_step.reorder)
    lengths = _awaiting(_step.lengths)

    async def close(self) -> None:
        """Ends the session, and frees what it keeps. A second time does nothing."""
        await run_async(_close(self._state))

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.close()
