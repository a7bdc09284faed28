"""What a cache of attnd's does with its session, call by call, beside plain lists: rows, lengths, padding, and ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Tuple

import pytest

import attnd

from .libraries import torch

ROWS, HEADS, DIM = 3, 2, 4


class Session:
    """Keeps tokens as numbers: the first element of each key."""

    def __init__(self, layers: int, options: Dict[str, Any]) -> None:
        self.options = options
        self.rows = options["rows"]
        self.tokens: List[List[List[float]]] = [[[] for _ in range(self.rows)] for _ in range(layers)]
        self.key_starts = [0] * self.rows
        self.content_hash = "hash"
        self.closed = 0
        self.grown: List[int] = []
        self.replayable = options["replay_bytes"] > 0
        self.error: Optional[BaseException] = None
        self._state = SimpleNamespace(recovery=None)

    def step(self, layer: int, **given: Any) -> Tuple[int, ...]:
        given.pop("timeout")
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if given.get("reorder") is not None:
            for tokens in self.tokens:
                tokens[:] = [list(tokens[row]) for row in given["reorder"]]
            self.key_starts = [self.key_starts[row] for row in given["reorder"]]
        if given.get("truncate") is not None:
            for tokens in self.tokens:
                for row, length in zip(tokens, given["truncate"]):
                    del row[length:]
        if given.get("key_starts") is not None:
            self.key_starts = list(given["key_starts"])
        return tuple(map(len, self.tokens[layer]))

    def append(self, layer: int, key: Any, value: Any, *, layout: str = "bshd", **given: Any) -> Any:
        assert layout == "bshd"
        assert torch.equal(value, key + 1)
        self.step(layer, **given)
        for row, tokens in zip(key, self.tokens[layer]):
            tokens.extend(row[:, 0, 0].tolist())

    def attend(self, layer: int, query: Any, key: Any, value: Any, *, expected_lengths: int, **given: Any) -> Any:
        changes = {name: given.pop(name) for name in ("reorder", "truncate", "key_starts")}
        self.step(layer, timeout=0, **changes)
        assert all(len(tokens) == expected_lengths for tokens in self.tokens[layer])
        self.append(layer, key, value, **given)
        return query

    def _grow(self, max_tokens: int) -> None:
        self.grown.append(max_tokens)

    def close(self) -> None:
        self.closed += 1


class Quick:
    """The short way, which takes a reorder alone. `used` counts."""

    used = 0
    refuses = False

    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session

    def attend(self, layer: int, tensors: Any, more: bytes) -> Any:
        from attnd.v1 import session_pb2

        if Quick.refuses:
            return None
        Quick.used += 1
        said = session_pb2.SessionStep.FromString(more)
        changes = {"reorder": list(said.reorder) or None, "truncate": None, "key_starts": None}
        return self._session.attend(
            layer, *tensors, expected_lengths=said.expected_lengths[0], layout="bshd", timeout=0, **changes
        )


class Place:
    """A store with two layers, and the lists beside it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, least: int = 0, room: int = 1000, grows: bool = False
    ) -> None:
        from attnd.transformers import _self_store

        monkeypatch.setattr(_self_store, "QuickSteps", Quick)
        Quick.used, Quick.refuses = 0, False
        module = SimpleNamespace(has_relative_attention_bias=True, scaling=1.0)
        self.layers = [SimpleNamespace(index=i, heads=HEADS, head_dim=DIM, module=module) for i in range(2)]
        self.sessions: List[Session] = []
        self.open: List[Any] = []
        self.contents = "contents"
        self.hashes = ["hash"] * 10
        self.forgotten = 0
        self.handle = SimpleNamespace(
            min_cached_tokens=least,
            replay_bytes=0,
            recovers=False,
            timeout=1.0,
            client=SimpleNamespace(session=self._open),
            contents_of=lambda path: self.contents,
            place=lambda contents: SimpleNamespace(model="m", tables=("a", "b"), content_hash=self.hashes.pop(0)),
            forget=self._forget,
            replaced_too_often=lambda place: attnd.Aborted("replaced"),
        )
        decoder: Any = SimpleNamespace(self_layers=self.layers, path=lambda index: "path")
        self.store: Any = _self_store.SelfStore(self.handle, decoder, self.open, room, grows)  # type: ignore[arg-type]
        self.tokens: List[List[float]] = [[] for _ in range(ROWS)]
        self.starts = [0] * ROWS
        self._next = 1.0

    def _open(self, layers: Any, model: str, **options: Any) -> Session:
        assert [layer.table for layer in layers] == ["a", "b"]
        self.sessions.append(Session(len(layers), options))
        return self.sessions[-1]

    def _forget(self, contents: Any, place: Any) -> None:
        self.forgotten += 1

    def go(self, count: int = 1, mask: Any = None) -> None:
        """A forward pass of new tokens, in both layers."""
        keys = torch.zeros(ROWS, count, HEADS, DIM)
        for row in range(ROWS):
            for t in range(count):
                keys[row, t] = self._next
                self._next += 1
        self.store.begin(ROWS, count, mask)
        for layer in self.layers:
            if self.store.remote:
                self.store.attend(layer, keys, keys, keys + 1)
            else:
                own = self.store.layers[layer.index]
                own.update(keys.transpose(1, 2), keys.transpose(1, 2) + 1)
        for row, new in zip(self.tokens, keys[:, :, 0, 0].tolist()):
            row.extend(new)

    def reorder(self, order: List[int]) -> None:
        self.store.reorder(order)
        self.tokens = [list(self.tokens[row]) for row in order]
        self.starts = [self.starts[row] for row in order]

    def cut(self, length: int) -> None:
        self.store.cut(length)
        for row in self.tokens:
            del row[length:]

    def check(self) -> None:
        assert self.store.remote
        assert self.sessions[-1].tokens == [self.tokens] * 2
        assert self.sessions[-1].key_starts == self.starts
        assert self.store.lengths == [len(self.tokens[0])] * 2
        assert self.store.length == len(self.tokens[0])


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def padded(starts: List[int], keys: int) -> Any:
    """A mask with padding on the left."""
    return torch.tensor([[[[key >= start for key in range(keys)]]] for start in starts])


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_any_changes_between_passes(place: Place, seed: int, quick: bool) -> None:
    """Several at once count one after another, and each of them once."""
    Quick.refuses = not quick
    generator = torch.Generator().manual_seed(seed)

    def below(n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator))

    place.go(3)
    for _ in range(40):
        for _ in range(below(4)):
            if below(3) < 2:
                place.reorder([below(ROWS) for _ in range(ROWS)])
            elif len(place.tokens[0]) > 2:
                place.cut(1 + below(len(place.tokens[0]) + 2))
        place.go([1, 1, 1, 2, 40][below(5)])
        place.check()
    assert (Quick.used > 0) == quick


def test_two_reorders_between_passes(place: Place) -> None:
    place.go(2)
    place.reorder([1, 2, 0])
    place.reorder([0, 0, 1])
    place.go()
    place.check()
    place.go()  # and nothing is reordered again
    place.check()


def test_two_cuts_between_passes(place: Place) -> None:
    for first, second in ((5, 3), (3, 5), (3, 3)):
        place.go(6)
        length = len(place.tokens[0])
        place.cut(length - first)
        place.cut(length - second)
        place.go()
        place.check()


@pytest.mark.parametrize("count", [1, 2, 33])
def test_padding_follows_its_rows(place: Place, count: int) -> None:
    place.starts = [0, 1, 2]
    place.go(3, padded(place.starts, 3))
    place.check()
    place.reorder([2, 0, 1])
    place.reorder([1, 1, 0])
    place.go(count, padded(place.starts, 3 + count))
    place.check()
    place.starts = [0, 0, 0]
    place.go(1, padded(place.starts, 4 + count))
    place.check()


def test_padding_is_what_the_mask_says(place: Place) -> None:
    """Also where rows have changed places and the mask is as it was: as for the beams of a batch."""
    starts = [0, 1, 2]
    place.starts = list(starts)
    place.go(3, padded(starts, 3))
    for order in ([2, 0, 1], [1, 1, 1], [0, 1, 2]):
        place.reorder(order)
        place.starts = list(starts)
        place.go(1, padded(starts, len(place.tokens[0]) + 1))
        place.check()


def test_padding_that_is_no_longer_there(place: Place) -> None:
    place.starts = [0, 1, 2]
    place.go(3, padded(place.starts, 3))
    place.starts = [0, 0, 0]
    place.go(1, None)
    place.check()


@pytest.mark.parametrize(
    ("least", "moved", "local"), [(9, False, 2), (8, False, 2), (10, False, 3), (9, True, 1), (6, True, 0)]
)
def test_when_a_store_moves(monkeypatch: pytest.MonkeyPatch, least: int, moved: bool, local: int) -> None:
    """When all rows together have enough tokens; half of that if rows have changed places. Everything moves."""
    place = Place(monkeypatch, least=least)
    if moved:
        place.store.note_moved()
    for i in range(5):
        place.go()
        assert place.store.remote == (i >= local)
    place.check()
    assert all(layer.keys is None for layer in place.store.layers)


@pytest.mark.parametrize("step", ["session", "step", "append"])
def test_a_move_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The store is local and empty, and the session is closed."""
    place = Place(monkeypatch, least=3 * 4)
    place.starts = [0, 1, 1]
    place.go(2, padded(place.starts, 2))
    place.go(1, padded(place.starts, 3))
    if step == "session":
        place.handle.client.session = lambda *_, **__: (_ for _ in ()).throw(attnd.Unavailable("gone"))
    else:
        real = place._open

        def opened(*given: Any, **options: Any) -> Session:
            session = real(*given, **options)
            if step == "step":
                session.error = attnd.Unavailable("gone")
            else:
                append = session.append

                def fails(layer: int, *more: Any, **given: Any) -> None:
                    if layer == 1:
                        raise attnd.Unavailable("gone")
                    append(layer, *more, **given)

                session.append = fails  # type: ignore[method-assign]
            return session

        place.handle.client.session = opened
    with pytest.raises(attnd.Unavailable):
        place.go(1, padded(place.starts, 4))
    assert not place.store.remote
    assert place.store.lengths == [0, 0]
    assert place.open == []
    assert [session.closed for session in place.sessions] == [1] * (step != "session")


@pytest.mark.parametrize("over", [0, 1])
def test_the_room_of_a_store(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    place = Place(monkeypatch, room=5)
    place.go(3)
    if over == 0:
        place.go(2)
        place.check()
        return
    asked = len(place.sessions[0].tokens[0][0])
    with pytest.raises(attnd.OutOfRange, match="max_tokens"):
        place.go(3)
    assert len(place.sessions[0].tokens[0][0]) == asked
    place.go(2)
    place.check()


@pytest.mark.parametrize("over", [0, 1])
def test_what_has_no_room_in_a_session_stays_local(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    place = Place(monkeypatch, room=5, least=1)
    place.go(5 + over)
    assert place.store.remote == (over == 0)


@pytest.mark.parametrize("grows", [False, True])
def test_growing(monkeypatch: pytest.MonkeyPatch, grows: bool) -> None:
    place = Place(monkeypatch, room=5, grows=grows)
    place.go(3)
    place.store.grow(5)
    place.store.grow(4)
    session = place.sessions[0]
    assert session.grown == []
    if grows:
        place.store.grow(6)
        assert (session.grown, place.store.max_tokens) == ([6], 6)
        place.go(3)
        place.check()
    else:
        with pytest.raises(attnd.OutOfRange):
            place.store.grow(6)
        assert place.store.max_tokens == 5


def test_weights_that_change_are_refused(place: Place) -> None:
    from attnd.transformers import Refused

    place.go()
    place.contents = "others"
    with pytest.raises(Refused, match="relative_attention_bias"):
        place.go()
    place.contents = "contents"
    place.go()
    place.check()


@pytest.mark.parametrize("wrong", [0, 1, 3, 4])
def test_a_model_that_is_replaced_while_a_session_is_opened(place: Place, wrong: int) -> None:
    """Its session is closed, and another is opened with the tables as they are now."""
    place.hashes = ["other"] * wrong + ["hash"] * 5
    if wrong == 4:
        with pytest.raises(attnd.Aborted):
            place.go()
        assert place.open == []
    else:
        place.go()
        place.check()
        assert place.open == place.sessions[-1:]
    assert place.forgotten == wrong
    assert [session.closed for session in place.sessions] == [1] * wrong + [0] * (wrong < 4)


def test_closing(place: Place) -> None:
    place.starts = [0, 1, 2]
    place.go(3, padded(place.starts, 3))
    place.reorder([2, 1, 0])
    place.cut(2)
    place.store.close()
    place.store.close()
    assert not place.store.remote
    assert place.open == []
    assert place.sessions[0].closed == 1
    # Another batch begins without a trace of this one.
    place.tokens, place.starts = [[] for _ in range(ROWS)], [0] * ROWS
    place.go(2)
    place.check()
