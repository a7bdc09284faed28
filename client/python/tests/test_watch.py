"""Timers: each overdue call is made once and in time, whatever else waits."""

from __future__ import annotations

import math
import threading
import time
from typing import List

import pytest

from attnd._watch import Watch
from waits import wait_for

LATER = 1000.0


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.mark.parametrize("others", [[], [LATER], [LATER, 2 * LATER], [0.0, LATER]])
def test_an_entry_is_called_at_its_time(watch: Watch, others: List[float]) -> None:
    """Also one that is due before those for which the thread waits already."""
    for seconds in others:
        watch.add(time.monotonic() + seconds, lambda: None)
    wait_for(lambda: not others or time.monotonic() < watch._wakes < math.inf)  # the thread waits
    called: List[float] = []
    at = time.monotonic() + 0.1
    watch.add(at, lambda: called.append(time.monotonic()))
    wait_for(lambda: bool(called))
    assert called[0] >= at


def test_an_entry_is_called_once(watch: Watch) -> None:
    called: List[int] = []
    for i in range(3):
        watch.add(time.monotonic(), lambda i=i: called.append(i))  # type: ignore[misc]
    last = threading.Event()
    watch.add(time.monotonic() + 0.1, last.set)
    assert last.wait(20), "it was not called"
    assert sorted(called) == [0, 1, 2]
    assert not watch._entries


def test_a_removed_entry_is_not_called(watch: Watch) -> None:
    called: List[int] = []
    numbers = [watch.add(time.monotonic() + 0.05 + i / 100, lambda i=i: called.append(i)) for i in range(6)]  # type: ignore[misc]
    for number in numbers[::2]:
        watch.remove(number)
        watch.remove(number)
    wait_for(lambda: len(called) == 3)
    last = threading.Event()
    watch.add(time.monotonic() + 0.05, last.set)
    assert last.wait(20), "it was not called"
    assert called == [1, 3, 5]


def test_what_is_called_may_add_and_remove(watch: Watch) -> None:
    again = threading.Event()
    other = watch.add(time.monotonic() + LATER, lambda: None)

    def first() -> None:
        watch.remove(other)
        watch.add(time.monotonic(), again.set)

    watch.add(time.monotonic(), first)
    assert again.wait(20), "the entry that was added is not called"
    wait_for(lambda: not watch._entries)


def test_one_thread_for_all(watch: Watch) -> None:
    before = threading.active_count()
    for _ in range(50):
        watch.remove(watch.add(time.monotonic() + LATER, lambda: None))
    assert threading.active_count() <= before + 1
