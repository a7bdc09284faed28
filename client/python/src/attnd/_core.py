"""What a client of either kind consists of."""

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
    """Thread-safe as far as its Io is."""

    def __init__(self, options: Options, io: Io, transports: List[Transport]) -> None:
        self.options = options
        self.io = io
        self.transports = transports
        self.policy = Policy(options.retry)
        # Whether the server has StreamAttention, as far as is known.
        self.has_streams = True
        self.closed = False

    def close_transports(self) -> None:
        """The client is being closed; its Io follows."""
        self.closed = True
        for transport in self.transports:
            transport.close()

    def check_open(self) -> None:
        """Raises FailedPrecondition if this client can make no calls."""
        _process.check()
        if self.closed:
            raise closed_error()

    def begin(self, timeout: Any, metadata: Any) -> Tuple[Deadline, Metadata]:
        """A call begins. Raises FailedPrecondition if this client can make none."""
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
        """For calls that change nothing on the server: attempts until one is answered, as `Retry` says, and also after
        errors that are `worth_another` to the call."""
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
        """Waits until it is time for another attempt, and a server is connected. Raises the call's error."""
        if not self.policy.connected:
            # A channel that found nobody is failing now; one that lost its connection is idle or connecting.
            self.policy.connected = yield io.reachable
            if not self.policy.connected:
                raise tries.explain(error) from None
        wait = tries.wait(error)
        yield lambda: io.pause(wait)
        until = tries.deadline()
        # A repeat while the connection is down would only fail, so that it is not spent.
        ready = yield lambda: io.connected(until)
        if not ready:
            raise tries.explain(error, ", and there is no time for another") from None
        tries.spend(error)

    def once(self, io: Io, deadline: Deadline, attempt: Callable[[bool], Operation[T]]) -> Operation[T]:
        """For calls with effects: after an error nobody knows whether the server began. What waits for a connection has
        not been sent. `attempt` is told whether gRPC shall wait for another connection: the one that is found here may
        be lost before the call takes it."""
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
    """One attempt of a gRPC method with messages."""
    payload = request.SerializeToString()
    answer: bytes = yield lambda: core.io.unary(method, payload, deadline, metadata, wait_for_ready)
    return _wire.parse(response, answer, f"the server's reply is no {response.DESCRIPTOR.name}")
