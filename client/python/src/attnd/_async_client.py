"""The asyncio client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Coroutine, TypeVar

from attnd import _methods, _open_sessions, _options, _process
from attnd._as_method import as_method
from attnd._awaiting import AwaitingIo
from attnd._client import ClientBase
from attnd._core import Core
from attnd._operation import Io, Operation, run_async
from attnd._session import State, open_session
from attnd._sessions import AsyncSession

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")


def _awaiting(
    operation: Callable[Concatenate[Core, P], Operation[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_async(operation(self._core, *args, **kwargs))

    return as_method(method, operation, "AsyncClient")


def _opening(
    operation: Callable[Concatenate[Core, P], Operation[State]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, AsyncSession]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncSession:
        return AsyncSession(await run_async(operation(self._core, *args, **kwargs)))

    return as_method(method, operation, "AsyncClient", "session", AsyncSession)


class AsyncClient(ClientBase):
    """The asyncio form of :class:`attnd.Client`: the same arguments and methods, which are awaited.

    The client belongs to the event loop of its first call, which may be uvloop's. Cancelling the task of a call cancels
    the call on the server too. Use it in an ``async with`` statement, or ``await client.close()``. Arrays are checked
    and joined into messages on the loop's thread, but nothing blocks there.

    Example:
        >>> async def main():
        ...     async with attnd.AsyncClient() as client:
        ...         outputs = await asyncio.gather(*(client.attend(q, k, v, "t5-tiny") for _ in range(10)))
        ...         return len(outputs)
        >>> asyncio.run(main())
        10
    """

    _asynchronous = True

    def _make_io(self, options: _options.Options) -> Io:
        return AwaitingIo(options)

    attend = _awaiting(_methods.attend)
    compute = _awaiting(_methods.compute)
    attend_many = _awaiting(_methods.attend_many)
    compute_many = _awaiting(_methods.compute_many)
    list_models = _awaiting(_methods.list_models)
    list_failed_models = _awaiting(_methods.list_failed_models)
    get_model = _awaiting(_methods.get_model)
    load_model = _awaiting(_methods.load_model)
    reload_model = _awaiting(_methods.reload_model)
    unload_model = _awaiting(_methods.unload_model)
    upload_table = _awaiting(_methods.upload_table)
    bias = _awaiting(_methods.bias)
    server_info = _awaiting(_methods.server_info)
    health = _awaiting(_methods.health)
    session = _opening(open_session)
    list_sessions = _awaiting(_open_sessions.list_sessions)
    evict_session = _awaiting(_open_sessions.evict_session)

    async def close(self) -> None:
        """Ends the calls under way with Cancelled and closes the connections. A second close does nothing; all other
        methods raise FailedPrecondition from then on."""
        if _process.forked():
            return
        self._core.close_transports()
        await self._core.io.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.close()
