"""A private server for notebooks and tests."""

from __future__ import annotations

import os
import pkgutil
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from types import TracebackType
from typing import Any, List, Optional, Sequence, Tuple, Type, Union
from urllib.parse import quote

from attnd.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable

_Path = Union[str, "os.PathLike[str]"]

# The longest path of a Unix socket, less the suffix ".shm" of the local socket next to it.
_MAX_PATH_BYTES = 107 - len(".shm")
# How long close() waits for the server to finish its calls, and how long after a second SIGTERM.
_DRAIN_SECONDS = 5.0
_STOP_SECONDS = 2.0
_LOG_TAIL_BYTES = 4000


def local_server(
    binary: Optional[_Path] = None,
    *,
    models: Optional[_Path] = None,
    threads: Optional[int] = None,
    arguments: Sequence[str] = (),
    timeout: float = 30.0,
) -> LocalServer:
    """Creates a private server on this host, for notebooks and tests.

    The server listens on a Unix socket in a new folder that only this user can enter, and offers shared memory and
    local calls. It starts when the ``with`` block is entered, or at ``start()``. It stops at the end of the block, at
    ``close()``, when the last reference to it goes away, or when this process ends, even if it is killed.

    Args:
        binary: the server's program. None: ATTND_BINARY in the environment, or else ``attnd`` on the PATH.
        models: folder of models; all models directly in it are loaded. The embedded models are always loaded.
        threads: threads that compute; None: the number of CPUs that this process may use.
        arguments: further flags of the server (``attnd --help``).
        timeout: seconds within which the server must be serving.

    Raises:
        NotFound: from start(): the program was not found; the message says where it was searched.
        Unavailable: from start(): the server ended at once; the message has its output.
        DeadlineExceeded: from start(): the server was not serving in time.

    Example:
        >>> with attnd.local_server(threads=1) as server, server.client() as client:
        ...     client.server_info().threads
        1
    """
    return LocalServer(binary, models, threads, arguments, timeout)


class LocalServer:
    """A private server, created by :func:`attnd.local_server`. Thread-safe except for start() and close().

    Example:
        >>> server = attnd.local_server().start()
        >>> server.target.startswith("unix:")
        True
        >>> server.close()
    """

    def __init__(
        self,
        binary: Optional[_Path],
        models: Optional[_Path],
        threads: Optional[int],
        arguments: Sequence[str],
        timeout: float,
    ) -> None:
        self._binary = binary
        self._flags = ["--shared_memory"]
        if models is not None:
            self._flags.append(f"--model_root={os.fspath(models)}")
        if threads is not None:
            self._flags.append(f"--threads={threads:d}")
        self._flags += arguments
        self._timeout = timeout
        self._folder = ""
        self._guard: Optional[subprocess.Popen[bytes]] = None
        self._end: Optional[weakref.finalize[Any, Any]] = None

    @property
    def target(self) -> str:
        """The target for clients. Raises FailedPrecondition if the server is not running."""
        self._check_running()
        return _target(self._folder)

    @property
    def pid(self) -> int:
        """The id of the process that runs the server and forwards SIGTERM to it."""
        return self._check_running().pid

    def client(self, **options: Any) -> Any:
        """Creates an :class:`attnd.Client` of the server, with the client's keyword arguments."""
        from attnd import Client  # noqa: PLC0415 - which imports this module

        return Client(self.target, **options)

    def async_client(self, **options: Any) -> Any:
        """Creates an :class:`attnd.AsyncClient` of the server, with the client's keyword arguments."""
        from attnd import AsyncClient  # noqa: PLC0415

        return AsyncClient(self.target, **options)

    def log(self) -> str:
        """The end of the server's log so far."""
        self._check_running()
        return _log_tail(self._folder)

    def start(self) -> LocalServer:
        """Starts the server and waits until it serves. Does nothing if it is running. Raises: see
        :func:`local_server`."""
        if self._guard is not None:
            return self
        binary = _find_binary(self._binary)
        deadline = time.monotonic() + self._timeout
        folder = _make_folder()
        try:
            guard = _spawn(binary, folder, self._flags)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._guard, self._folder = guard, folder
        self._end = weakref.finalize(self, _stop, guard, folder, os.getpid())
        try:
            _wait_until_serving(guard, folder, deadline, self._timeout)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stops the server after the calls under way, for which it waits up to five seconds. A second call does
        nothing."""
        end, self._end = self._end, None
        self._guard = None
        if end is not None:
            end()

    def __enter__(self) -> LocalServer:
        return self.start()

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<attnd.LocalServer {_target(self._folder) if self._guard is not None else 'not running'}>"

    def _check_running(self) -> subprocess.Popen[bytes]:
        if self._guard is None:
            raise FailedPrecondition.of("local_server", "one that runs (start(), or a with block)", "one that does not")
        return self._guard


def _find_binary(binary: Optional[_Path]) -> str:
    expected = "attnd's server, as the argument binary, in ATTND_BINARY, or on the PATH"
    named = [("binary", binary), ("ATTND_BINARY", os.environ.get("ATTND_BINARY"))]
    for source, value in named:
        if value:
            found = shutil.which(os.fspath(value))
            if found is None:
                raise NotFound.of("binary", expected, f"{source} {os.fspath(value)!r}, which is no program")
            return os.path.abspath(found)
    found = shutil.which("attnd")
    if found is None:
        path = os.environ.get("PATH", "")
        raise NotFound.of("binary", expected, f"neither of the former, and no attnd in {path!r}")
    return os.path.abspath(found)


def _make_folder() -> str:
    """Creates a folder that only this user can enter, with a path short enough for the sockets' names."""
    tried: List[Tuple[str, str]] = []
    for parent in (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp"):
        if not parent:
            continue
        if "," in parent:
            tried.append((parent, "gRPC takes a comma for the end of a name"))
            continue
        try:
            folder = tempfile.mkdtemp(prefix="attnd-", dir=parent)
        except OSError as error:
            tried.append((parent, str(error)))
            continue
        if len(os.fsencode(_socket_path(folder))) <= _MAX_PATH_BYTES:
            return folder
        os.rmdir(folder)
        tried.append((parent, "too long for a Unix socket"))
    got = "; ".join(f"{parent}: {why}" for parent, why in tried)
    raise FailedPrecondition.of("TMPDIR", "a folder with a short path that can be written", got)


def _socket_path(folder: str) -> str:
    return os.path.join(folder, "attnd.sock")


def _target(folder: str) -> str:
    return "unix://" + quote(os.fsencode(_socket_path(folder)), safe="/-._~")


def _spawn(binary: str, folder: str, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    source = pkgutil.get_data("attnd", "_guard.py")
    if not sys.executable or source is None:
        raise FailedPrecondition.of("sys.executable", "this Python's program, to run the server from", "none")
    command = [sys.executable, "-I", "-S", "-c", source.decode(), str(os.getpid()), folder, binary]
    command += [f"--listen={_target(folder)}", *flags]
    with open(os.path.join(folder, "log"), "wb") as log:
        # In a new process session, so that Ctrl-C in a terminal reaches this process and not the server.
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _wait_until_serving(guard: subprocess.Popen[bytes], folder: str, deadline: float, timeout: float) -> None:
    pause = 0.002
    path = _socket_path(folder)
    while not (_accepts(path, socket.SOCK_STREAM) and _accepts(path + ".shm", socket.SOCK_SEQPACKET)):
        if guard.poll() is not None:
            raise Unavailable(f"the server ended at once, with code {guard.returncode}: {_log_tail(folder)}")
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"the server did not serve within {timeout:g} s: {_log_tail(folder)}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def _accepts(path: str, kind: int) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError:
            return False
    return True


def _log_tail(folder: str) -> str:
    try:
        with open(os.path.join(folder, "log"), "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip() or "it wrote nothing"
    except OSError as error:
        return f"its log cannot be read: {error}"


def _stop(guard: subprocess.Popen[bytes], folder: str, owner: int) -> None:
    if os.getpid() != owner:
        return  # in a forked child: the server belongs to the parent
    try:
        for patience in (_DRAIN_SECONDS, _STOP_SECONDS):
            guard.send_signal(signal.SIGTERM)
            try:
                guard.wait(patience)
                break
            except subprocess.TimeoutExpired:
                pass
    finally:
        if guard.poll() is None:
            guard.kill()  # the kernel kills the server with it
            guard.wait()
        shutil.rmtree(folder, ignore_errors=True)
