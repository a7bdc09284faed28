"""Waiting for a connection: what wakes the callers, and when close() may go on."""

from __future__ import annotations

import math
import threading
import time
from typing import Any, Callable, List

import grpc
import pytest

from attnd._connection_watch import ConnectionWatch
from attnd._deadline import Deadline
from waits import in_thread, wait_for

STATES = grpc.ChannelConnectivity
LONG = Deadline(math.inf)


class FakeChannel:
    """A channel that the test connects. `asked` has what each subscription asked for: whether to connect."""

    def __init__(self) -> None:
        self.asked: List[bool] = []
        self.told: List[Callable[[Any], None]] = []

    def subscribe(self, tell: Callable[[Any], None], try_to_connect: bool) -> None:
        self.asked.append(try_to_connect)
        self.told.append(tell)

    def unsubscribe(self, tell: Callable[[Any], None]) -> None:
        if tell in self.told:  # as grpcio, which ignores others
            self.told.remove(tell)

    def tell(self, state: Any) -> None:
        for tell in list(self.told):
            tell(state)


@pytest.fixture
def channel() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
def watch(channel: FakeChannel) -> ConnectionWatch:
    return ConnectionWatch(channel)  # type: ignore[arg-type]


def test_a_connection_wakes_all_callers(watch: ConnectionWatch, channel: FakeChannel) -> None:
    results = [in_thread(lambda: watch.ready(LONG)) for _ in range(5)]
    wait_for(lambda: len(channel.told) == 5)
    for state in (STATES.IDLE, STATES.CONNECTING, STATES.TRANSIENT_FAILURE):
        channel.tell(state)
    channel.tell(STATES.READY)
    assert [result() for result in results] == [True] * 5
    assert channel.told == []
    assert channel.asked == [True] * 5


@pytest.mark.parametrize("last", [None, STATES.TRANSIENT_FAILURE])
def test_the_deadline_ends_the_wait(watch: ConnectionWatch, channel: FakeChannel, last: Any) -> None:
    result = in_thread(lambda: watch.ready(Deadline(0.2)))
    wait_for(lambda: len(channel.told) == 1)
    if last is not None:
        channel.tell(last)
    assert result() is False
    assert channel.told == []
    assert not watch.ready(Deadline(0))


@pytest.mark.parametrize("state", STATES)
def test_the_first_state(watch: ConnectionWatch, channel: FakeChannel, state: Any) -> None:
    result = in_thread(watch.first_state)
    wait_for(lambda: len(channel.told) == 1)
    channel.tell(state)
    assert result() is state
    assert channel.asked == [False]
    assert channel.told == []


def test_the_end_wakes_all_callers_and_waits_for_them(watch: ConnectionWatch, channel: FakeChannel) -> None:
    results = [in_thread(lambda: watch.ready(LONG)) for _ in range(3)]
    wait_for(lambda: len(channel.told) == 3)
    held, go = threading.Event(), threading.Event()
    unsubscribe = channel.unsubscribe

    def hold(tell: Any) -> None:
        held.set()
        assert go.wait(20), "the test does not go on"
        unsubscribe(tell)

    channel.unsubscribe = hold  # type: ignore[method-assign]
    end = in_thread(watch.end)
    assert held.wait(20), "no caller was woken"
    assert end.is_under_way()  # the channel must not be closed while a caller uses it
    go.set()
    end()
    assert [result() for result in results] == [False] * 3
    assert channel.told == []


def test_after_the_end_nobody_subscribes(watch: ConnectionWatch, channel: FakeChannel) -> None:
    watch.end()
    assert watch.ready(LONG) is False
    assert watch.first_state() is None
    assert channel.asked == []


def test_the_end_waits_for_the_thread_of_grpcio(watch: ConnectionWatch, channel: FakeChannel) -> None:
    """It ends some time after the last subscription, and would fail on a closed channel."""
    assert watch.ready(Deadline(0)) is False
    begun = time.monotonic()
    watch.end()
    assert time.monotonic() - begun >= 0.25
    begun = time.monotonic()
    watch.end()
    assert time.monotonic() - begun < 10


def test_a_caller_that_has_given_up_is_woken_and_the_others_wait_on(
    watch: ConnectionWatch, channel: FakeChannel
) -> None:
    gone = threading.Event()
    leaves = in_thread(lambda: watch.ready(LONG, gone.is_set))
    stays = in_thread(lambda: watch.ready(LONG))
    wait_for(lambda: len(channel.told) == 2)
    gone.set()
    watch.wake()
    assert leaves() is False
    assert stays.is_under_way()
    channel.tell(STATES.READY)
    assert stays() is True


def test_an_error_while_subscribing_leaves_nothing_waiting(watch: ConnectionWatch, channel: FakeChannel) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    channel.subscribe = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        watch.ready(LONG)
    in_thread(watch.end)()
