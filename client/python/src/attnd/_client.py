"""The blocking client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, List, Optional, TypeVar

from attnd import _empty, _methods, _open_sessions, _options, _process
from attnd._as_method import as_method
from attnd._blocking import BlockingIo
from attnd._core import Core
from attnd._operation import Io, Operation, run
from attnd._retry import Retry
from attnd._session import State, open_session
from attnd._sessions import Session
from attnd._target import unix_path
from attnd._transport import Transport

if TYPE_CHECKING:
    import grpc
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")


class ClientBase:
    """The settings, properties and memory that both clients share."""

    _asynchronous = False

    def __init__(
        self,
        target: Optional[str] = None,
        *,
        credentials: Optional[grpc.ChannelCredentials] = None,
        token: Optional[_options.Token] = None,
        timeout: float = 60.0,
        retry: Optional[Retry] = Retry(),  # noqa: B008 (immutable)
        shared_memory: bool = True,
        local_calls: bool = True,
        load_balancing: str = "pick_first",
        channels: int = 1,
        keepalive_time: float = 30.0,
        keepalive_timeout: float = 10.0,
        user_agent: Optional[str] = None,
    ) -> None:
        options = _options.checked(
            target,
            credentials=credentials,
            token=token,
            timeout=timeout,
            retry=retry,
            shared_memory=shared_memory,
            local_calls=local_calls,
            load_balancing=load_balancing,
            channels=channels,
            keepalive_time=keepalive_time,
            keepalive_timeout=keepalive_timeout,
            user_agent=user_agent,
        )
        _process.use()
        self._core = Core(options, self._make_io(options), ways_on_this_host(options, self._asynchronous))

    def _make_io(self, options: _options.Options) -> Io:
        raise NotImplementedError

    @property
    def target(self) -> str:
        """The target given to the client, or else ATTND_SERVER, or else the default."""
        return self._core.options.target

    @property
    def transport(self) -> str:
        """The transport that attention calls use now.

        "local" is the local socket next to the server's Unix socket. "shared_memory" is gRPC with the tensors in shared
        memory. "grpc" is gRPC alone, the fallback for calls that neither of the others can take. If the transport is
        not known yet, the blocking client asks the server; the asyncio client knows it after its first call.
        """
        self._core.check_open()
        return next((transport.name for transport in self._core.transports if transport.ready()), "grpc")

    def empty(self, shape: Any, dtype: Any = "float32", *, kind: Optional[str] = None) -> Any:
        """Allocates an array of zeros that travels to the server and back without a copy.

        If the target is a Unix socket, the array is in memory shared with the server, on huge pages if it fills one
        (2 MiB); otherwise it is in ordinary memory. Contiguous views of the array, and torch tensors over it, are not
        copied either. The memory is freed with the last of them; after the client is closed it is ordinary memory.

        Args:
            shape: sizes, or one size.
            dtype: float32, float16 or bfloat16, by name or as a dtype of numpy, torch or ml_dtypes.
            kind: "numpy" or "torch"; None is torch if ``dtype`` is a torch dtype, and numpy otherwise.

        Raises:
            InvalidArgument: the shape, dtype or kind is invalid.
            ResourceExhausted: no memory or file descriptor is left.

        Allocating a large array takes time (some milliseconds per MiB): allocate it once and use it for many calls.
        After a call that ended early (timeout, cancellation), the server may still read and write the array for a
        moment.

        Example:
            >>> q = client.empty((1, 8, 16, 64))
            >>> q[:] = 1
            >>> out = client.empty((1, 8, 16, 64))
            >>> client.attend(q, q, q, "t5-tiny", out=out) is out
            True
        """
        self._core.check_open()
        allocates = (transport.memory() for transport in self._core.transports)
        return _empty.make(next((allocate for allocate in allocates if allocate is not None), None), shape, dtype, kind)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"an attnd.{type(self).__name__} has connections, and is neither copied nor pickled: make another"
        )

    def __repr__(self) -> str:
        closed = ", closed" if self._core.closed else ""
        return f"attnd.{type(self).__name__}({self.target!r}{closed})"


def ways_on_this_host(options: _options.Options, asynchronous: bool) -> List[Transport]:
    """The transports other than gRPC that a client with these options can use, the best first."""
    path = unix_path(options.target)
    if path is None or options.credentials is not None or not (options.local_calls or options.shared_memory):
        return []
    from attnd import _host  # noqa: PLC0415 - clients of other targets do without

    return _host.transports(path, options, asynchronous)


def _blocking(operation: Callable[Concatenate[Core, P], Operation[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(operation(self._core, *args, **kwargs))

    return as_method(method, operation, "Client")


def _opening(
    operation: Callable[Concatenate[Core, P], Operation[State]],
) -> Callable[Concatenate[Client, P], Session]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Session:
        return Session(run(operation(self._core, *args, **kwargs)))

    return as_method(method, operation, "Client", "session", Session)


class Client(ClientBase):
    """Calls an attnd server.

    Creating a client is expensive, and it connects at its first call: create one and share it. All methods may be
    called from several threads at once. Close the client, or use it in a ``with`` statement; a client that is garbage
    collected without being closed leaks nothing.

    Timeouts: every call has a timeout, 60 seconds unless the client or the call sets another; when it has passed,
    DeadlineExceeded is raised. In a call, ``timeout=None`` means the client's timeout and ``float("inf")`` means none.

    Retries: calls that a server refuses or loses are sent again as :class:`attnd.Retry` describes, so that a server's
    restart only delays them.

    Fork: a process may fork before it creates its first client, or fork and exec at any time. In a child that was
    forked later (multiprocessing's start method "fork"), creating a client and every method except ``close`` raise
    FailedPrecondition at once; the parent's clients keep working.

    An interrupted call (KeyboardInterrupt) is cancelled on the server too.

    Args:
        target: a gRPC name: "host:port", "dns:///name:port", "unix:///run/attnd/attnd.sock". None is ATTND_SERVER in
            the environment, or "127.0.0.1:50051" if that is not set either.
        credentials: for TLS, for example ``grpc.ssl_channel_credentials(root)``; None: no encryption.
        token: sent as ``authorization: Bearer``: a string, or a function that is called for each call. Allowed only
            with ``credentials`` or for a server on this host.
        timeout: seconds; for calls that set none.
        retry: how calls are repeated; None: never.
        shared_memory: pass tensors in shared memory if the target is a Unix socket and the server offers it.
        local_calls: make calls and open sessions over the local socket if the target is a Unix socket and the server
            offers it.
        load_balancing: how a name with several addresses is used, "pick_first" or "round_robin".
        channels: number of gRPC channels that calls use in turn, each with its own connection, 1 to 64.
        keepalive_time: seconds. While calls wait, a connection that has received nothing for this long is pinged.
            ``float("inf")``: never.
        keepalive_timeout: seconds without an answer to the ping after which the connection is closed and its calls
            fail with Unavailable.
        user_agent: prepended to the library's own.

    Raises:
        InvalidArgument: the target or a setting is invalid.
        FailedPrecondition: this process is a forked child.

    Example:
        >>> with attnd.Client() as client:
        ...     client.attend(q, k, v, "t5-tiny").dtype
        dtype('float32')
    """

    def _make_io(self, options: _options.Options) -> Io:
        return BlockingIo(options)

    attend = _blocking(_methods.attend)
    compute = _blocking(_methods.compute)
    attend_many = _blocking(_methods.attend_many)
    compute_many = _blocking(_methods.compute_many)
    list_models = _blocking(_methods.list_models)
    list_failed_models = _blocking(_methods.list_failed_models)
    get_model = _blocking(_methods.get_model)
    load_model = _blocking(_methods.load_model)
    reload_model = _blocking(_methods.reload_model)
    unload_model = _blocking(_methods.unload_model)
    upload_table = _blocking(_methods.upload_table)
    bias = _blocking(_methods.bias)
    server_info = _blocking(_methods.server_info)
    health = _blocking(_methods.health)
    session = _opening(open_session)
    list_sessions = _blocking(_open_sessions.list_sessions)
    evict_session = _blocking(_open_sessions.evict_session)

    def close(self) -> None:
        """Ends the calls under way with Cancelled and closes the connections. A second close does nothing; all other
        methods raise FailedPrecondition from then on."""
        if _process.forked():
            return
        self._core.close_transports()
        self._core.io.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
