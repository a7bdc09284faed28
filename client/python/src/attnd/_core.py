"""The state and retry loop that both kinds of client share."""

from __future__ import annotations

from typing import Any, Callable, List, Tuple, TypeVar

from attnd import _process, _wire
from attnd._closed import closed_error
from attnd._deadline import Deadline, checked_timeout
from attnd._operation import Io, Metadata, Operation
from attnd._options import Options, checked_metadata
from attnd._retry import Policy, Tries
from attnd._transport import Transport
from attnd.errors import Error

T = TypeVar("T")


class Core:
    """One client. As thread-safe as its Io."""

    def __init__(self, options: Options, io: Io, transports: List[Transport]) -> None:
        self.options = options
        self.io = io
        self.transports = transports
        self.policy = Policy(options.retry)
        # Whether the server has StreamAttention; True until it refuses it.
        self.has_streams = True
        self.closed = False

    def close_transports(self) -> None:
        """First half of closing the client; the Io is closed next."""
        self.closed = True
        for transport in self.transports:
            transport.close()

    def check_open(self) -> None:
        """Raises FailedPrecondition if the client is closed or this is a forked child."""
        _process.check()
        if self.closed:
            raise closed_error()

    def begin(self, timeout: Any, metadata: Any) -> Tuple[Deadline, Metadata]:
        """Begins a call: returns its deadline and metadata. Raises as check_open(), and DeadlineExceeded or
        InvalidArgument for an unusable timeout or metadata."""
        self.check_open()
        deadline = Deadline(checked_timeout(timeout, self.options.timeout))
        if deadline.passed():
            raise deadline.error()
        pairs = (*checked_metadata(metadata), *self.options.authorization())
        return deadline, pairs

    def repeated(
        self,
        io: Io,
        deadline: Deadline,
        attempt: Callable[[], Operation[T]],
        worth_another: Callable[[Error], bool] = lambda _: False,
    ) -> Operation[T]:
        """For calls that change nothing on the server: repeats `attempt` until it succeeds, as `Retry` describes, and
        also after errors for which `worth_another` is true."""
        tries = Tries(self.policy, deadline)
        while True:
            try:
                result = yield from attempt()
            except Error as error:
                if not tries.failed(error, worth_another(error)) or self.closed:
                    raise tries.explain(error) from None
                yield from self._await_next(io, tries, error)
            else:
                self.policy.connected = True
                return result

    def _await_next(self, io: Io, tries: Tries, error: Error) -> Operation[None]:
        """Waits until the next attempt is due and a server is connected. Raises the call's error if there is none."""
        if not self.policy.connected:
            # A channel that never reached a server is in TRANSIENT_FAILURE; one that lost its connection is idle or
            # connecting.
            self.policy.connected = yield io.reachable
            if not self.policy.connected:
                raise tries.explain(error) from None
        wait = tries.wait(error)
        yield lambda: io.pause(wait)
        until = tries.deadline()
        # An attempt without a connection would fail, so the budget is charged only once there is one.
        ready = yield lambda: io.connected(until)
        if not ready:
            raise tries.explain(error, ", and there is no time for another") from None
        tries.spend(error)

    def once(self, io: Io, deadline: Deadline, attempt: Callable[[bool], Operation[T]]) -> Operation[T]:
        """For calls with effects, which are not repeated: after an error it is not known whether the server began.
        Waiting for a connection is safe, since nothing is sent before. `attempt` gets the `wait_for_ready` of the gRPC
        call: the connection found here may be lost before the call uses it, and gRPC then waits for another."""
        connected = False
        if self.policy.options.enabled and self.policy.connected:
            until = Tries(self.policy, deadline).deadline()
            connected = yield lambda: io.connected(until)
        result = yield from attempt(connected)
        self.policy.connected = True
        return result


def ask_server(
    core: Core,
    method: str,
    request: Any,
    response: Any,
    deadline: Deadline,
    metadata: Metadata,
    wait_for_ready: bool = False,
) -> Operation[Any]:
    """Makes one attempt of a unary gRPC method."""
    payload = request.SerializeToString()
    answer: bytes = yield lambda: core.io.unary(method, payload, deadline, metadata, wait_for_ready)
    return _wire.parse(response, answer, f"the server's reply is no {response.DESCRIPTOR.name}")
