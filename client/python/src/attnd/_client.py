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
    """What both clients have: settings, and what follows from them."""

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
        """The target that was given; without one, that of ATTND_SERVER or the default."""
        return self._core.options.target

    @property
    def transport(self) -> str:
        """The way that attention calls go now.

        "local" is over the socket beside the server's Unix socket, "shared_memory" by gRPC with tensors in shared
        memory, "grpc" by gRPC alone, as everything goes that cannot go the first two ways. The blocking client asks the
        server if it is not known yet; the asyncio client knows it from its first call on.
        """
        self._core.check_open()
        return next((transport.name for transport in self._core.transports if transport.ready()), "grpc")

    def empty(self, shape: Any, dtype: Any = "float32", *, kind: Optional[str] = None) -> Any:
        """A new array of zeros, which travels to the server and back without a copy.

        It lies in memory that the server shares, on huge pages if it fills one (2 MiB), where the target is a Unix
        socket, and in ordinary memory elsewhere. Views of it, and torch tensors over it, are as good as itself if they
        have no gaps. The memory goes with the last of them; after the client was closed it is ordinary memory.

        Args:
            shape: sizes, or one size.
            dtype: float32, float16 or bfloat16, by name or as a dtype of numpy, torch or ml_dtypes.
            kind: "numpy" or "torch"; None is torch if ``dtype`` is one of torch's, and numpy otherwise.

        Raises:
            InvalidArgument: no such shape, dtype or kind.
            ResourceExhausted: no memory or descriptor is left.

        A large one takes time to make (some milliseconds a MiB): make it once and use it for many calls. A call that
        ended early (timeout, cancellation) may leave the server reading and writing for a moment.

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
    """The ways beside gRPC that a client of these options has, the best first."""
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

    Making a client is expensive, and it connects with its first call; make one and share it. All methods may be called
    from several threads at once. Close it, or use it in a ``with`` statement; one that is dropped without closing
    leaves nothing behind.

    Timeouts: every call has one, 60 seconds unless the client or the call says otherwise; DeadlineExceeded is raised
    when it has passed. ``timeout=None`` in a call is the client's, ``float("inf")`` is none.

    Repeats: what a server refuses or loses is sent again as :class:`attnd.Retry` says, so that a restart shows as a
    delay.

    Fork: a process may fork before its first client is made, or fork and exec at any time. In a child that was forked
    later (multiprocessing's start method "fork") every method, and making a client, raises FailedPrecondition at once;
    the parent's clients go on.

    An interrupted call (KeyboardInterrupt) is cancelled on the server too.

    Args:
        target: a gRPC name: "host:port", "dns:///name:port", "unix:///run/attnd/attnd.sock". None is ATTND_SERVER in
            the environment, or "127.0.0.1:50051" if that is not set either.
        credentials: for TLS, for example ``grpc.ssl_channel_credentials(root)``; None: no encryption.
        token: sent along as ``authorization: Bearer``: a string, or a function that is asked at each call. Only beside
            ``credentials``, or to a server on this host.
        timeout: of calls that name none, in seconds.
        retry: how calls are repeated; None: not at all.
        shared_memory: hand tensors over in shared memory where the target is a Unix socket and the server offers it.
        local_calls: make calls, and open sessions, over the socket beside a Unix socket where the server offers it.
        load_balancing: how a name with several addresses is used, "pick_first" or "round_robin".
        channels: number of gRPC channels that calls take in turns, each with a connection of its own, 1 to 64.
        keepalive_time: seconds. While calls wait, a connection on which nothing has arrived for this long is asked for
            a sign of life. ``float("inf")``: never.
        keepalive_timeout: seconds after which such a connection is given up, and its calls fail with Unavailable.
        user_agent: put before the library's own.

    Raises:
        InvalidArgument: a target or settings that make no client.
        FailedPrecondition: in a forked child.

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
        """Ends the calls under way with Cancelled, and the connections. A second time does nothing; other methods then
        raise FailedPrecondition."""
        if _process.forked():
            return
        self._core.close_transports()
        self._core.io.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
