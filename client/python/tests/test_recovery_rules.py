"""What becomes of a session after each kind of loss, at each moment, step by step, with a server that is a model."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

import attnd
from attnd import _session_recovery, _sessions, _step
from attnd._operation import run
from attnd._session import State
from model_sessions import LAYERS, LOST, ROWS, Place, check_settled

EVICTED = attnd.Aborted("evicted", field="session")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_loss_changes_nothing_that_is_seen(place: Place, done: bool, forget: bool, times: int) -> None:
    """Before a step is done or after it, once or in the restoration too; with the server's copy or the client's."""
    state = place.open()
    expected: List[List[List[float]]] = [[[] for _ in range(ROWS)] for _ in LAYERS]

    def step(layer: int, length: int, **given: Any) -> None:
        keys = place.keys(length)
        found = run(_step.append(state, layer, keys, keys, **given))
        if "reorder" in given:
            for i in range(len(LAYERS)):
                expected[i] = [list(expected[i][row]) for row in given["reorder"]]
        lengths = given.get("key_lengths", [length] * ROWS)
        for row in range(ROWS):
            expected[layer][row] += [float(keys[row, :, t].astype("f8").sum()) for t in range(lengths[row])]
        assert found == tuple(map(len, expected[layer]))

    for i in range(8):
        if i % 2:
            place.lose(times, done=done, forget=forget)
        more: Dict[str, Any] = {"reorder": [2, 0, 0]} if i == 4 else {"key_lengths": [3, 0, 1]} if i == 2 else {}
        step(i % 2, 3, **more)
        check_settled(place, state)
    assert place.kept() == expected
    assert state.recovery is not None
    assert state.recovery.resumes + state.recovery.replays >= 4
    assert (state.recovery.replays > 0) == forget
    assert state.recovery.token in place.server.sessions  # it could be resumed again


# How a session may be restored: arguments of its opening.
MEANS: Dict[str, Dict[str, Any]] = {
    "copy and grace": {},
    "copy": {"grace": 0},
    "grace": {"replay_bytes": 0, "grace": 20},
}


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("forget", [False, True])
def test_which_means_restore_a_session(place: Place, means: str, forget: bool) -> None:
    state = place.open(**MEANS[means])
    recovery = state.recovery
    assert recovery is not None
    place.append(state)
    place.lose(forget=forget)
    if means == "grace" and forget:
        with pytest.raises(attnd.Unavailable, match=r"^lost; then: no such session"):
            place.append(state)
        with pytest.raises(attnd.Unavailable):
            place.append(state)
    else:
        assert place.append(state) == (4,) * ROWS
        resumes = "grace" in means and not forget
        assert (recovery.resumes, recovery.replays) == ((1, 0) if resumes else (0, 1))
    check_settled(place, state)


def test_without_means_a_loss_is_the_end(place: Place) -> None:
    state = place.open(replay_bytes=0)
    assert state.recovery is None
    place.append(state)
    place.lose()
    for _ in range(2):
        with pytest.raises(attnd.Unavailable, match=r"^lost$"):
            place.append(state)
    assert place.server.asked.count("open") == 1


@pytest.mark.parametrize("replays_evicted", [False, True])
@pytest.mark.parametrize("done", [False, True])
def test_an_eviction(place: Place, replays_evicted: bool, done: bool) -> None:
    """Is the end, or an evicted session is replayed: its token is of no use."""
    state = place.open(replay_evicted=replays_evicted)
    place.append(state)
    place.lose(error=EVICTED, done=done, forget=True)
    place.server.asked.clear()
    if replays_evicted:
        assert place.append(state) == (4,) * ROWS
        assert "resume" not in place.server.asked
        assert place.server.asked.count("open") == 1
    else:
        for _ in range(2):
            with pytest.raises(attnd.Aborted, match=r"^evicted$"):
                place.append(state)
        assert place.server.asked == [2]
        assert state.log is not None
        assert not state.log.kept
        assert state.log.used_bytes == 0
    check_settled(place, state)


@pytest.mark.parametrize(("off_by", "taken"), [(-2, False), (-1, False), (0, True), (1, True), (2, False)])
def test_the_last_step_of_a_resumed_session(place: Place, off_by: int, taken: bool) -> None:
    """The step under way was done, or it was not. Anything else is another session."""
    state = place.open(grace=20)
    for _ in range(3):
        place.append(state)
    # The server has answered step 3, and 4 is under way.
    place.server.last_step_is_off_by = off_by
    place.lose()
    if taken:
        if off_by == 1:
            place.server.sessions[b"token 1"].last_step += 1  # as if it were done
            place.server.last_step_is_off_by = 0
        place.append(state)
    else:
        with pytest.raises(attnd.Internal, match="last_step"):
            place.append(state)
    check_settled(place, state)


def test_a_step_that_is_asked_again_has_what_is_left_of_its_time(place: Place) -> None:
    state = place.open()
    place.server.after = lambda what: None
    place.lose()
    real = place.server.before

    def slow(what: Any) -> None:
        if what in ("resume", "open"):
            place.clock.now += 3.0
        real(what)

    place.server.before = slow
    place.append(state, timeout=10.5)
    pauses = sum(one[1] for one in place.io.done if one[0] == "pause")
    assert place.server.timeouts == [pytest.approx(10.5 - 3.0 - pauses, abs=1e-6)]


@pytest.mark.parametrize("timeout", [2.0, 5.0])
def test_a_restoration_ends_with_the_steps_time(place: Place, timeout: float) -> None:
    state = place.open()
    place.lose(1000)
    begun = place.clock.now
    with pytest.raises(attnd.Unavailable, match=r"^lost; then: lost .* no time for another"):
        place.append(state, timeout=timeout)
    assert place.clock.now <= begun + timeout
    check_settled(place, state)


def test_a_notice_of_a_server_before_is_forgotten(place: Place) -> None:
    state = place.open()
    place.server.going_away = 7
    place.append(state)
    assert state.going_away == 7
    place.server.going_away = None
    place.lose(forget=True)
    place.append(state)
    assert state.going_away is None
    place.server.going_away = 3
    place.append(state)
    assert state.going_away == 3


def test_a_session_that_is_closed_while_it_is_restored_is_not_opened_again(place: Place) -> None:
    for moment in ("resume", "open", 1):
        state = place.open()
        recovery = state.recovery
        assert recovery is not None
        place.append(state)

        def close(what: Any) -> None:
            """As another thread does, which then waits for its turn."""
            if what == moment and not closed:  # noqa: B023
                closed.append(True)  # noqa: B023
                closing = _session_recovery.close(state, recovery)  # noqa: B023
                next(closing)
                raise attnd.Unavailable("lost again")

        closed: List[bool] = []
        failed: List[bool] = []

        def lost(what: Any) -> None:
            if not failed:  # noqa: B023
                failed.append(True)  # noqa: B023
                place.server.sessions.clear()
                raise attnd.Unavailable("lost")
            close(what)

        place.server.before = lost
        with pytest.raises(attnd.FailedPrecondition, match="the session is closed"):
            place.append(state)
        place.server.before = lambda what: None
        assert closed
        check_settled(place, state)
        with pytest.raises(attnd.FailedPrecondition, match="closed"):
            place.append(state)


# Errors while the session is restored, the question that fails, and whether another attempt follows.
FAILURES: Dict[str, Tuple[Any, attnd.Error, bool]] = {
    "no memory now": ("open", attnd.ResourceExhausted("full", retry_delay=0.1), True),
    "no memory for a piece now": (1, attnd.ResourceExhausted("full", retry_delay=0.1), True),
    "no memory ever": ("open", attnd.ResourceExhausted("full"), False),
    "no memory for a piece ever": (1, attnd.ResourceExhausted("full"), False),
    "lost again": ("open", LOST, True),
    "lost again in a piece": (1, LOST, True),
    "cancelled": ("open", attnd.Cancelled("no"), True),
    "no model": ("open", attnd.NotFound("no model", field="model"), False),
    "odd": (1, attnd.Internal("odd"), False),
    "no permission": ("open", attnd.PermissionDenied("no"), False),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_while_a_session_is_restored(place: Place, failure: str) -> None:
    moment, error, another = FAILURES[failure]
    state = place.open(grace=0)
    place.append(state)
    left = [0, 1]

    def fail(what: Any) -> None:
        if left[0] == 0:
            left[0] = 1
            raise attnd.Unavailable("lost")
        if what == moment and left[1]:
            left[1] -= 1
            raise error

    place.server.before = fail
    if another:
        assert place.append(state) == (4,) * ROWS
        check_settled(place, state)
        return
    with pytest.raises(type(error)):
        place.append(state)
    check_settled(place, state)
    with pytest.raises(type(error)):
        place.append(state)
    assert state.log is not None
    assert not state.log.kept


@pytest.mark.parametrize("restores", [None, "second", "third"])
def test_a_model_of_other_content(place: Place, restores: Optional[str]) -> None:
    """Is no substitute, unless the model can be restored."""
    state = place.open(grace=0)
    state.opened.content_hash = place.server.content
    place.append(state)
    place.server.content = "second"
    asked: List[Any] = []

    def restore(opening: Any) -> str:
        asked.append(opening.model)
        return str(restores)

    if restores is not None:
        assert state.recovery is not None
        state.recovery.restore_model = restore
    place.lose(forget=True)
    if restores == "second":
        assert place.append(state) == (4,) * ROWS
    else:
        with pytest.raises(attnd.FailedPrecondition, match="content that the session began with"):
            place.append(state)
    assert asked == ["m"] * (restores is not None)
    check_settled(place, state)


@pytest.mark.parametrize("most", [6 * 192, 10 * 192, 1 << 20])
def test_pieces_fit_into_the_servers_messages(place: Place, most: int) -> None:
    """Of a stream over gRPC: with all that is beside the tensors."""
    place.server.max_message_bytes = most
    state = place.open(grace=0)
    for _ in range(5):
        place.append(state, length=40)
    place.server.sizes.clear()
    place.lose()
    place.append(state, length=1)
    width = ROWS * 2 * (4 + 4) * 4
    beside = 1024 + 20 * ROWS
    fills = [size for size in place.server.sizes if size > 300]
    assert all(size <= max(most, width + beside) for size in fills)
    if most > beside + 2 * width:
        assert len(fills) < 5 * 40  # several tokens each


def test_growing(place: Place) -> None:
    state = place.open()
    for layer in (0, 1):
        place.append(state, layer, length=5)
    before = [[list(row) for row in rows] for rows in place.kept()]
    run(_session_recovery.grow(state, 5000))
    assert place.server.openings[-1].max_tokens == 5000
    assert place.kept() == before
    check_settled(place, state)
    assert place.append(state) == (7,) * ROWS
    place.lose(forget=True)
    assert place.append(state) == (9,) * ROWS
    assert place.server.openings[-1].max_tokens == 5000


def test_growing_that_fails_is_the_end(place: Place) -> None:
    state = place.open()
    place.append(state)
    place.lose(1000, attnd.ResourceExhausted("full"))
    with pytest.raises(attnd.ResourceExhausted):
        run(_session_recovery.grow(state, 5000))
    check_settled(place, state)
    with pytest.raises(attnd.ResourceExhausted):
        place.append(state)


def fail(place: Place, state: State, error: attnd.Error) -> None:
    place.lose(error=error)
    with pytest.raises(type(error)):
        place.append(state)


def interrupt(place: Place, state: State) -> None:
    def stop(what: Any) -> None:
        place.server.before = lambda what: None
        raise KeyboardInterrupt

    place.server.before = stop
    with pytest.raises(KeyboardInterrupt):
        place.append(state)


WAYS: Dict[str, Callable[[Place, State], None]] = {
    "close": lambda place, state: run(_sessions._close(state)),
    "interrupt": interrupt,
    "refused": lambda place, state: fail(place, state, attnd.Internal("odd")),
    "evicted": lambda place, state: fail(place, state, EVICTED),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_end_frees_the_copy_and_stays(place: Place, way: str) -> None:
    state = place.open()
    place.append(state)
    recovery = state.recovery
    assert recovery is not None
    WAYS[way](place, state)
    assert state.log is not None
    assert (state.log.kept, state.log.used_bytes) == (False, 0)
    assert recovery.turn.held == 0
    place.server.before = lambda what: None
    for _ in range(2):
        with pytest.raises(attnd.Error):
            place.append(state)
    run(_sessions._close(state))
    run(_sessions._close(state))
    assert all(stream._failure is not None for stream in place.server.streams)
    assert place.server.asked.count("open") == 1


def test_a_step_that_is_too_large_changes_nothing(place: Place) -> None:
    state = place.open()
    place.append(state)
    stream: Any = state.stream

    def refuse(*_: Any) -> Any:
        del stream.ask
        raise attnd.ResourceExhausted("too large")

    stream.ask = refuse
    with pytest.raises(attnd.ResourceExhausted):
        place.append(state)
    check_settled(place, state)
    assert place.append(state) == (4,) * ROWS
    assert state.recovery is not None
    assert (state.recovery.resumes, state.recovery.replays) == (0, 0)


def test_settings_are_restored_too(place: Place) -> None:
    state = place.open(grace=0)
    place.append(state, length=4, key_starts=[0, 1, 2])
    place.append(state, reorder=[2, 2, 0])
    place.append(state, truncate=[3, 6, 1])
    place.lose()
    place.append(state)
    stream = place.server.open_streams()[-1]
    assert stream._kept is not None
    assert stream._kept.key_starts == [2, 2, 0]
    assert [len(row) for row in stream._kept.tokens[0]] == [7, 10, 5]
