"""Sessions that the server evicts and their client brings back, beside ones that it keeps: the same bits."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Callable, Iterator

import pytest

import attnd
from attnd import _session_recovery
from conftest import Server
from inputs import same_bits
from test_session_recovery import (
    ENOUGH,
    LAYERS,
    ROWS,
    SELF,
    SOURCES,
    Caller,
    Steps,
    both,
    caller,
    cut,
    doors,
    lose_the_answer,
    one_row,
    token,
)
from waits import join_all, until, wait_for

KEPT: dict[str, Any] = {"replay_bytes": ENOUGH, "replay_evicted": True}


@contextlib.contextmanager
def evicting(server: Server) -> Iterator[Callable[[], None]]:
    """What evicts all sessions of a server."""
    with attnd.Client(server.tcp) as operator:

        def gone() -> bool:
            infos = operator.list_sessions()
            for info in infos:
                with contextlib.suppress(attnd.NotFound):  # it has ended meanwhile
                    operator.evict_session(info.id)
            return not infos

        def evict() -> None:
            wait_for(gone)

        yield evict


def learn(one: Caller, session: Any) -> None:
    """Waits until the client knows that its stream has ended, as far as it learns of that by itself."""
    call = getattr(session._state.stream, "_call", None)
    if isinstance(one.client, attnd.AsyncClient) and call is not None:
        one.call(until(call.done))


def never(*_: Any) -> Any:
    raise AssertionError("a session that was evicted is not resumed")


@both
@doors
def test_nothing_shows_of_evictions(
    server: Server, make_server: Callable[..., Server], door: str, asynchronous: bool
) -> None:
    sizes = {"rows": ROWS, "sources": SOURCES, "max_tokens": 500, "max_source_tokens": 200}
    other = make_server("--shared_memory")
    said = attnd.Aborted.of("session", "none that is evicted", "an operator's EvictSession")
    with caller(server, door) as one, caller(other, door, asynchronous) as two, evicting(other) as evict:
        evictions: list[Callable[[], None]] = [
            evict,
            lambda: lose_the_answer(evicted, evict, said),
            lambda: (cut(evicted), evict())[0],
        ]
        steady = one.session(LAYERS, "t5-tiny", **sizes)
        evicted = two.session(LAYERS, "t5-tiny", **sizes, **KEPT)
        steps = Steps(seed=asynchronous)
        for i in range(36):
            if i % 4 == 3:
                evictions[i // 4 % len(evictions)]()
            arguments, options = steps.next()
            expected = steady.step(*arguments, **options)
            got = two.call(evicted.step(*arguments, **options))
            assert got.lengths == expected.lengths
            for part in ("output", "log_sum_exp"):
                left, right = getattr(got, part), getattr(expected, part)
                assert (left is None) == (right is None)
                assert left is None or same_bits(left, right)
        assert (evicted.replays, evicted.resumes) == (9, 0)
        for layer in range(len(LAYERS)):
            assert two.call(evicted.lengths(layer)) == steady.lengths(layer)
        two.call(evicted.close())
        steady.close()


@both
@doors
def test_an_idle_session_comes_back(
    server: Server, make_server: Callable[..., Server], door: str, asynchronous: bool
) -> None:
    other = make_server("--shared_memory", "--session_idle=300ms")
    with caller(server, door) as one, caller(other, door, asynchronous) as two, attnd.Client(other.tcp) as operator:
        steady, idle = one_row(one), one_row(two, **KEPT)
        for i in range(3):
            tokens = token(i, length=40)
            assert same_bits(two.call(idle.attend(0, *tokens)), steady.attend(0, *tokens))
            wait_for(lambda: not operator.list_sessions())
        assert two.call(idle.lengths(0)) == steady.lengths(0) == (120,)
        assert idle.replays >= 3  # one more where this test itself was idle for so long
        assert idle.resumes == 0
        two.call(idle.close())
        steady.close()


@both
@doors
def test_an_evicted_session_is_not_resumed(
    make_server: Callable[..., Server], door: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session_recovery, "_resume", never)
    server = make_server("--shared_memory")
    with caller(server, door, asynchronous) as one, evicting(server) as evict:
        session = one_row(one, **KEPT)
        one.call(session.append(0, *token(1)[1:]))
        for replays in (1, 2):
            assert session._state.recovery.token
            evict()
            learn(one, session)
            assert one.call(session.append(0, *token(2)[1:])) == (1 + replays,)
            assert session.replays == replays
        one.call(session.close())


@both
@doors
@pytest.mark.parametrize("options", [{"replay_bytes": ENOUGH}, {"replay_bytes": 100_000, "replay_evicted": True}])
def test_without_the_flag_or_a_log_eviction_is_the_end(
    make_server: Callable[..., Server],
    door: str,
    asynchronous: bool,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_session_recovery, "_resume", never)
    server = make_server("--shared_memory")
    with caller(server, door, asynchronous) as one, evicting(server) as evict:
        session = one_row(one, **options)
        one.call(session.append(0, *token(1, length=40)[1:]))
        assert session.replayable is (options["replay_bytes"] == ENOUGH)
        evict()
        learn(one, session)
        for _ in range(2):
            with pytest.raises(attnd.Aborted, match="EvictSession") as caught:
                one.call(session.lengths(0))
            assert caught.value.field == "session"
        assert (session.replays, session.resumes, session.replay_bytes) == (0, 0, 0)
        one.call(session.close())


@both
@doors
def test_a_session_is_evicted_while_it_is_filled(
    server: Server,
    make_server: Callable[..., Server],
    door: str,
    asynchronous: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filled, steps = 0, _session_recovery._steps
    other = make_server("--shared_memory")
    with caller(server, door) as one, caller(other, door, asynchronous) as two, evicting(other) as evict:

        def evicted_twice(*arguments: Any) -> Any:
            nonlocal filled
            filled += 1
            for step in steps(*arguments):
                if filled < 3:
                    evict()
                yield step

        monkeypatch.setattr(_session_recovery, "_steps", evicted_twice)
        steady, session = one_row(one), one_row(two, **KEPT)
        for i in range(2):
            tokens = token(i, length=40)
            assert same_bits(two.call(session.attend(0, *tokens)), steady.attend(0, *tokens))
            evict()
        assert (filled, session.replays) == (3, 1)
        two.call(session.close())
        steady.close()


@both
@doors
@pytest.mark.parametrize("lost", ["evicted", "server"])
def test_a_server_without_room_is_asked_again(
    make_server: Callable[..., Server], door: str, asynchronous: bool, lost: str
) -> None:
    server = make_server("--shared_memory", "--max_sessions=1")
    with caller(server, door, asynchronous) as one, attnd.Client(server.tcp) as other, evicting(server) as evict:
        session = one_row(one, **KEPT)
        one.call(session.append(0, *token(1)[1:]))
        evict() if lost == "evicted" else server.restart()
        taken = other.session([SELF], "t5-tiny", max_tokens=9)
        leaving = threading.Timer(0.5, taken.close)
        leaving.start()
        assert one.call(session.append(0, *token(2)[1:])) == (2,)
        join_all([leaving])
        assert (session.replays, session.resumes) == (1, 0)
        one.call(session.close())


@both
@doors
def test_without_room_in_time_the_eviction_is_the_error(
    make_server: Callable[..., Server], door: str, asynchronous: bool
) -> None:
    server = make_server("--shared_memory", "--max_sessions=1")
    with caller(server, door, asynchronous) as one, attnd.Client(server.tcp) as other, evicting(server) as evict:
        session = one_row(one, **KEPT)
        one.call(session.append(0, *token(1)[1:]))
        evict()
        learn(one, session)
        with other.session([SELF], "t5-tiny", max_tokens=9):  # the server says: in a second
            with pytest.raises(attnd.Aborted, match=r"EvictSession; then: open: .* 1 sessions .*no time") as caught:
                one.call(session.append(0, *token(2)[1:], timeout=0.9))
            with pytest.raises(attnd.Aborted) as again:
                one.call(session.lengths(0))
        assert str(again.value) == str(caught.value)
        assert session.replay_bytes == 0
        one.call(session.close())


def test_two_sessions_take_turns_where_there_is_room_for_one(
    server: Server, make_server: Callable[..., Server]
) -> None:
    other = make_server("--shared_memory", "--max_sessions=1", "--session_lease=100ms")
    with caller(server, "local") as one, caller(other, "local") as two:
        steady, first = one_row(one), one_row(two, **KEPT)
        first.append(0, *token(0)[1:])
        second = one_row_when_there_is_room(two)
        second.append(0, *token(0)[1:])
        steady.append(0, *token(0)[1:])
        for i in range(1, 4):
            expected = steady.attend(0, *token(i))
            for session in (first, second):
                assert same_bits(session.attend(0, *token(i)), expected)
        assert (first.replays, second.replays) == (3, 3)
        for session in (first, second, steady):
            session.close()


def one_row_when_there_is_room(caller: Caller) -> Any:
    for _ in range(100):
        with contextlib.suppress(attnd.ResourceExhausted):
            return one_row(caller, **KEPT)
        time.sleep(0.1)
    raise AssertionError("no room")


@both
@pytest.mark.parametrize("options", [{}, {"replay_bytes": 0}, {"grace": 20}])
def test_the_flag_needs_a_log(server: Server, asynchronous: bool, options: dict[str, Any]) -> None:
    with caller(server, "tcp", asynchronous) as one:
        with pytest.raises(attnd.InvalidArgument, match="expected False without replay_bytes, got True") as caught:
            one_row(one, replay_evicted=True, **options)
        assert caught.value.field == "replay_evicted"
        one.call(one_row(one, replay_evicted=False, **options).close())
