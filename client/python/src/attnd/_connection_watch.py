"""Watches the connection state of a blocking gRPC channel."""

from __future__ import annotations

import threading
import time
from typing import Callable, Optional

import grpc

from attnd._deadline import Deadline

# grpcio polls the connection on its own thread, which ends this long after the last subscription. If the channel is
# closed before that, the thread fails with an exception.
_THREAD_ENDS = 0.3


class ConnectionWatch:
    """Subscribes to the channel's state only while a caller waits. Thread-safe."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._changed = threading.Condition()
        self._waiting = 0
        self._thread_ends = 0.0
        self._ended = False

    def first_state(self) -> Optional[grpc.ChannelConnectivity]:
        """The state now; None if it is not reported within a second or the channel is being closed."""
        return self._wait(False, 1.0, lambda state: True)

    def ready(self, deadline: Deadline, given_up: Callable[[], bool] = lambda: False) -> bool:
        """Waits until the channel is connected; False if it is not by the deadline, or is being closed, or the caller
        has given up: after a change of `given_up` call wake()."""
        wanted = grpc.ChannelConnectivity.READY
        return self._wait(True, deadline.left(), lambda state: state is wanted, given_up) is wanted

    def wake(self) -> None:
        """Lets waiting callers ask whether they have given up."""
        with self._changed:
            self._changed.notify_all()

    def end(self) -> None:
        """Prepares for closing the channel: wakes all waiting callers, and waits until grpcio's thread has ended."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting == 0)
        time.sleep(max(0.0, self._thread_ends - time.monotonic()))

    def _wait(
        self,
        connect: bool,
        timeout: Optional[float],
        enough: Callable[[grpc.ChannelConnectivity], bool],
        given_up: Callable[[], bool] = lambda: False,
    ) -> Optional[grpc.ChannelConnectivity]:
        last: Optional[grpc.ChannelConnectivity] = None

        def tell(state: grpc.ChannelConnectivity) -> None:
            nonlocal last
            with self._changed:
                last = state
                self._changed.notify_all()

        with self._changed:
            if self._ended:
                return None
            self._waiting += 1
        try:
            self._channel.subscribe(tell, try_to_connect=connect)
            with self._changed:
                self._changed.wait_for(
                    lambda: self._ended or given_up() or (last is not None and enough(last)), timeout
                )
                return last
        finally:
            self._channel.unsubscribe(tell)
            with self._changed:
                self._waiting -= 1
                self._thread_ends = time.monotonic() + _THREAD_ENDS
                self._changed.notify_all()
