"""When a call is sent again, step by step, by a clock that only the test moves."""

from __future__ import annotations

import math
from typing import Any

import pytest

import attnd
from attnd import errors
from attnd._core import Core
from attnd._deadline import Deadline
from attnd._operation import run
from attnd._retry import Policy, Tries, comes_back, is_eviction, is_loss
from scripted import Clock, ScriptedIo, scripted_core

LOST = attnd.Unavailable("stopping")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, "_retry", "_deadline")


@pytest.fixture
def io(clock: Clock) -> ScriptedIo:
    return ScriptedIo(clock)


def repeated(core: Core, attempt: Any, timeout: float = math.inf, **more: Any) -> Any:
    return run(core.repeated(core.io, Deadline(timeout), attempt, **more))


def pushed(seconds: float, error: attnd.Error | None = None) -> attnd.Error:
    """An error with the server's pushback."""
    found = error or attnd.Unavailable("later")
    found.__dict__["_pushback"] = seconds
    return found


# By the errors' names, with a message that matters where one does: those after which a call is sent again.
REPEATED = {"Unavailable": "", "Cancelled": "", "Unknown": "Stream removed"}
ALL = [name for name in errors.__all__ if name != "Error"]


@pytest.mark.parametrize("name", ALL)
def test_which_errors_are_repeated(io: ScriptedIo, name: str) -> None:
    core = scripted_core(io, attnd.Retry())
    core.policy.connected = True
    error = getattr(errors, name)(REPEATED.get(name, ""))
    if name in REPEATED:
        assert repeated(core, io.attempts(error, error, 7)) == 7
        assert io.done.count("attempt") == 3
    else:
        with pytest.raises(type(error)) as caught:
            repeated(core, io.attempts(error))
        assert caught.value is error
        assert io.done == ["attempt"]


@pytest.mark.parametrize("name", ALL)
def test_without_retries_nothing_is_repeated(io: ScriptedIo, name: str) -> None:
    core = scripted_core(io, None)
    core.policy.connected = True
    error = getattr(errors, name)(REPEATED.get(name, ""))
    with pytest.raises(type(error)) as caught:
        repeated(core, io.attempts(error), worth_another=lambda _: True)
    assert caught.value is error
    assert io.done == ["attempt"]


def test_other_errors_may_be_worth_another_attempt(io: ScriptedIo) -> None:
    core = scripted_core(io, attnd.Retry())
    core.policy.connected = True
    full, other = attnd.ResourceExhausted("full"), attnd.NotFound("gone")
    with pytest.raises(attnd.NotFound):
        repeated(core, io.attempts(full, full, other), worth_another=lambda error: error is full)
    assert io.done.count("attempt") == 3


@pytest.mark.parametrize("name", ALL)
def test_kinds_of_errors_of_sessions(name: str) -> None:
    kind = getattr(errors, name)
    assert is_loss(kind("Stream removed")) == (name in ("Unavailable", "Unknown"))
    assert is_loss(kind("no")) == (name == "Unavailable")
    assert is_eviction(kind("no", field="session")) == (name == "Aborted")
    assert not is_eviction(kind("no", field="model"))
    assert comes_back(kind("no", retry_delay=0.0)) == (name == "ResourceExhausted")
    assert not comes_back(kind("no"))


def test_what_comes_between_attempts(io: ScriptedIo) -> None:
    """A pause, then a connection, then a repeat of the budget; until max_time after the first attempt."""
    core = scripted_core(io, attnd.Retry(max_time=10, initial_backoff=1.0, max_backoff=2.0))
    assert repeated(core, io.attempts(LOST, LOST, LOST, 7)) == 7
    assert io.done[:2] == ["attempt", "reachable"]  # asked once, after the first failure
    rest = io.done[2:]
    assert [one if isinstance(one, str) else one[0] for one in rest] == ["pause", "connected", "attempt"] * 3
    passed = 0.0
    for most, (_, pause), (_, left) in zip((1.0, 2.0, 2.0), rest[::3], rest[1::3]):
        assert most / 2 <= pause <= most
        passed += pause
        assert left == pytest.approx(10 - passed)


def test_a_server_that_was_reached_is_not_looked_for_again(io: ScriptedIo) -> None:
    core = scripted_core(io, attnd.Retry())
    assert not core.policy.connected
    repeated(core, io.attempts(1))
    assert core.policy.connected
    io.is_reachable = False
    assert repeated(core, io.attempts(LOST, 2)) == 2
    assert "reachable" not in io.done


def test_a_server_that_was_never_reached_is_not_waited_for(io: ScriptedIo) -> None:
    io.is_reachable = False
    core = scripted_core(io, attnd.Retry())
    with pytest.raises(attnd.Unavailable, match=r"^stopping$"):
        repeated(core, io.attempts(LOST))
    assert io.done == ["attempt", "reachable"]
    waits = scripted_core(io, attnd.Retry(wait_for_first_server=True))
    assert repeated(waits, io.attempts(LOST, 3)) == 3


def test_no_connection_costs_no_repeat_of_the_budget(io: ScriptedIo) -> None:
    core = scripted_core(io, attnd.Retry(budget=0.0, reserve_per_second=0.1))  # one repeat
    core.policy.connected = True
    io.is_connected = False
    for _ in range(3):
        with pytest.raises(attnd.Unavailable, match=r"attempt 1 in .* no time for another"):
            repeated(core, io.attempts(LOST))
    io.is_connected = True
    assert repeated(core, io.attempts(LOST, 1)) == 1
    with pytest.raises(attnd.Unavailable, match=r"attempt 1 in .* budget of repeats is used up"):
        repeated(core, io.attempts(LOST, 1))


# (max_time, timeout, pushback of the first failure, whether there is an attempt after it).
TIMES: Any = [
    (10.0, math.inf, 9.9, True),
    (10.0, math.inf, 10.0, False),
    (10.0, 5.0, 4.9, True),
    (10.0, 5.0, 5.0, False),
    (5.0, 10.0, 5.0, False),
    (0.0, math.inf, 0.0, False),
    (10.0, math.inf, 0.0, True),
]


@pytest.mark.parametrize(("max_time", "timeout", "pushback", "another"), TIMES)
def test_no_pause_goes_beyond_the_end(
    clock: Clock, io: ScriptedIo, max_time: float, timeout: float, pushback: float, another: bool
) -> None:
    core = scripted_core(io, attnd.Retry(max_time=max_time))
    core.policy.connected = True
    begun = clock.now
    if another:
        assert repeated(core, io.attempts(pushed(pushback), 4), timeout) == 4
        assert ("pause", pushback) in io.done
    else:
        with pytest.raises(attnd.Unavailable, match="no time for another"):
            repeated(core, io.attempts(pushed(pushback)), timeout)
        assert io.done == ["attempt"]
    assert clock.now <= begun + min(max_time, timeout)


@pytest.mark.parametrize(("slow", "attempts"), [(3.0, 4), (9.0, 2), (11.0, 1)])
def test_slow_attempts_count(clock: Clock, io: ScriptedIo, slow: float, attempts: int) -> None:
    """The last attempt begins within max_time."""

    def take() -> None:
        begins.append(clock.now)
        clock.now += slow

    begins: list[float] = []
    core = scripted_core(io, attnd.Retry(max_time=10.0))
    core.policy.connected = True
    start = clock.now
    with pytest.raises(attnd.Unavailable, match="no time for another"):
        repeated(core, io.attempts(*[LOST] * 10, before=take))
    assert begins[-1] < start + 10.0
    assert len(begins) == attempts


@pytest.mark.parametrize(("pushback", "forbidden"), [(-1.0, True), (-0.001, True), (0.0, False), (0.5, False)])
def test_pushback(io: ScriptedIo, pushback: float, forbidden: bool) -> None:
    core = scripted_core(io, attnd.Retry())
    core.policy.connected = True
    if forbidden:
        with pytest.raises(attnd.Unavailable, match="the server wants no repeat"):
            repeated(core, io.attempts(pushed(pushback)))
        assert io.done == ["attempt"]
    else:
        assert repeated(core, io.attempts(pushed(pushback), 1)) == 1
        assert ("pause", pushback) in io.done


def test_pushback_begins_the_backoff_anew(clock: Clock) -> None:
    tries = Tries(Policy(attnd.Retry(initial_backoff=0.1, max_backoff=10)), Deadline(60), jitter=lambda: 1.0)
    assert [round(tries.wait(LOST), 6) for _ in range(3)] == [0.1, 0.2, 0.4]
    assert tries.wait(pushed(0.7)) == 0.7
    assert [round(tries.wait(LOST), 6) for _ in range(2)] == [0.1, 0.2]


@pytest.mark.parametrize("when", ["attempt", "pause"])
def test_a_closed_client_sends_nothing_again(io: ScriptedIo, when: str) -> None:
    """After close() a failure is the last: whether it comes in an attempt, or after a pause."""

    def close() -> None:
        core.closed = True

    core = scripted_core(io, attnd.Retry())
    core.policy.connected = True
    if when == "pause":
        io.in_pause = close
        attempt = io.attempts(LOST, LOST, 1)
    else:
        attempt = io.attempts(LOST, 1, before=close)
    with pytest.raises(attnd.Unavailable):
        repeated(core, attempt)
    assert io.done.count("attempt") == (2 if when == "pause" else 1)


@pytest.mark.parametrize("found", [False, True])
def test_a_call_with_effects_waits_for_a_connection_and_is_sent_once(clock: Clock, io: ScriptedIo, found: bool) -> None:
    """gRPC waits for another connection if the one that was found is lost meanwhile."""
    io.is_connected = found
    core = scripted_core(io, attnd.Retry(max_time=7))
    core.policy.connected = True
    with pytest.raises(attnd.Unavailable, match=r"^stopping$"):
        run(core.once(io, Deadline(60), io.attempts(LOST)))
    assert run(core.once(io, Deadline(3), io.attempts(5))) == 5
    assert io.done == [("connected", 7.0), ("attempt", found), ("connected", 3.0), ("attempt", found)]


@pytest.mark.parametrize(("retry", "known"), [(attnd.Retry(), False), (None, True)])
def test_a_call_with_effects_does_not_wait_where_that_is_not_asked(io: ScriptedIo, retry: Any, known: bool) -> None:
    core = scripted_core(io, retry)
    core.policy.connected = known
    assert run(core.once(io, Deadline(60), io.attempts(5))) == 5
    assert io.done == [("attempt", False)]
    assert core.policy.connected


def test_each_call_earns_its_share_once(io: ScriptedIo) -> None:
    core = scripted_core(io, attnd.Retry(budget=0.5, reserve_per_second=0.0))
    core.policy.connected = True
    with pytest.raises(attnd.Unavailable, match="budget"):
        repeated(core, io.attempts(LOST, 1))
    assert repeated(core, io.attempts(LOST, 1)) == 1  # two calls earn one repeat
    with pytest.raises(attnd.Unavailable, match="budget"):
        repeated(core, io.attempts(LOST, 1))


def test_the_message_says_how_often(clock: Clock, io: ScriptedIo) -> None:
    core = scripted_core(io, attnd.Retry())
    core.policy.connected = True
    begun = clock.now
    with pytest.raises(attnd.NotFound, match=r"^gone \(attempt 3 in \d+\.\d+ s\)$") as caught:
        repeated(core, io.attempts(LOST, LOST, attnd.NotFound("gone", field="model", expected="a", got="b")))
    error = caught.value
    assert (error.field, error.expected, error.got) == ("model", "a", "b")
    assert f"{clock.now - begun:.3f} s" in str(error)
