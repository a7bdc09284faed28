"""A cache's cross attention, call by call, beside plain rows: shared sources, masks, reorders and losses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import numpy as np
import pytest

import attnd

from .libraries import torch

HEADS, DIM, LAYERS = 2, 4, 2


class Session:
    """Answers each row with the sum of its source's visible keys."""

    def __init__(self, options: Dict[str, Any]) -> None:
        self.options = options
        self.row_sources = list(options["row_sources"])
        self.keys: List[Optional[Any]] = [None] * LAYERS
        self.visible: Any = np.ones((options["sources"], options["max_source_tokens"]), bool)
        self.error: Optional[attnd.Error] = None
        self.appended = 0
        self.closed = 0

    def append(self, layer: int, key: Any, value: Any, *, key_mask: Any, **_: Any) -> None:
        assert torch.equal(value, key + 1)
        assert key.shape[0] == self.options["sources"]
        before = self.keys[layer]
        self.keys[layer] = key if before is None else torch.cat([before, key], 1)
        self.appended += 1
        self._mask(key_mask)

    def attend(self, layer: int, query: Any, *, reorder: Any = None, key_mask: Any = None, **_: Any) -> Any:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if reorder is not None:
            self.row_sources = [self.row_sources[row] for row in reorder]
        self._mask(key_mask)
        keys = self.keys[layer]
        assert keys is not None
        seen = keys * torch.from_numpy(self.visible)[:, :, None, None]
        return seen.sum(1)[self.row_sources][:, None]

    def _mask(self, mask: Any) -> None:
        if mask is not None:
            self.visible = np.array(mask)

    def close(self) -> None:
        self.closed += 1


class Quick:
    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session

    def attend(self, layer: int, tensors: Any) -> Any:
        return self._session.attend(layer, *tensors)


class Layer:
    heads, head_dim = HEADS, DIM
    module = SimpleNamespace(scaling=1.0)

    def __init__(self, index: int) -> None:
        self.index = index
        self.projected = 0

    def key(self, states: Any) -> Any:
        self.projected += 1
        return states.view(*states.shape[:2], HEADS, DIM) * (self.index + 1)

    def value(self, states: Any) -> Any:
        return states.view(*states.shape[:2], HEADS, DIM) * (self.index + 1) + 1


class Place:
    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, rows: List[int], masks: Optional[List[List[int]]] = None
    ) -> None:
        """`rows` has the number of each row's source."""
        from attnd.transformers import _cross_store

        monkeypatch.setattr(_cross_store, "QuickSteps", Quick)
        self.sessions: List[Session] = []
        self.open: List[Any] = []
        self.layers = [Layer(i) for i in range(LAYERS)]
        self.handle = SimpleNamespace(recovers=True, timeout=1.0, client=SimpleNamespace(session=self._open))
        decoder: Any = SimpleNamespace(cross_layers=self.layers)
        self.store: Any = _cross_store.CrossStore(self.handle, decoder, self.open)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(0)
        sources = torch.randn(max(rows) + 1, 5, HEADS * DIM, generator=generator)
        self.states = sources[rows]
        self.mask = None
        if masks is not None:
            self.mask = torch.tensor(masks, dtype=torch.bool)[rows][:, None, None, :]

    def _open(self, layers: Any, **options: Any) -> Session:
        self.sessions.append(Session(options))
        return self.sessions[-1]

    def check(self, times: int = 1) -> None:
        """Passes through both layers."""
        for _ in range(times):
            for layer in self.layers:
                query = torch.zeros(len(self.states), 1, HEADS, DIM)
                found = self.store.attend(layer, query, self.states, self.mask)
                keys = self.states.view(*self.states.shape[:2], HEADS, DIM) * (layer.index + 1)
                if self.mask is not None:
                    keys = keys * self.mask[:, 0, 0, :, None, None]
                assert torch.allclose(found[:, 0], keys.sum(1))

    def reorder(self, order: List[int]) -> None:
        self.store.reorder(order)
        self.states = self.states[order]
        if self.mask is not None:
            self.mask = self.mask[order]


ROWS = {"one each": [0, 1, 2], "shared": [0, 0, 1, 1], "mixed": [0, 1, 0, 2, 1], "one": [0]}
MASKS = {"none": None, "padding": [[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 0, 1, 0, 1]], "all": [[1] * 5] * 3}
ORDERS: List[Any] = [[], [0], [0, 1], [2, 1, 0], [3, 3, 0, 1], [4, 0, 0, 2, 1]]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("rows", ROWS)
def test_each_source_is_kept_once(monkeypatch: pytest.MonkeyPatch, rows: str, mask: str) -> None:
    place = Place(monkeypatch, ROWS[rows], MASKS[mask])
    place.check(3)
    (session,) = place.sessions
    assert session.options["sources"] == len(set(ROWS[rows]))
    assert session.options["rows"] == len(ROWS[rows])
    assert [layer.projected for layer in place.layers] == [1, 1]
    assert place.open == [session]


@pytest.mark.parametrize("lost", [None, attnd.Unavailable("lost"), attnd.Aborted("evicted")])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("rows", [name for name in ROWS if len(ROWS[name]) > 2])
def test_rows_keep_their_sources(monkeypatch: pytest.MonkeyPatch, rows: str, mask: str, lost: Any) -> None:
    """After reorders, one or two between passes; and if the session is lost meanwhile."""
    count = len(ROWS[rows])
    place = Place(monkeypatch, ROWS[rows], MASKS[mask])
    place.check()
    order = ORDERS[count]
    for moves in ([order], [order, order], [list(range(count))], [order, order, order]):
        for move in moves:
            place.reorder(move)
        if lost is not None:
            place.sessions[-1].error = lost
        place.check(2)
    lost_times = 4 if lost is not None else 0
    assert len(place.sessions) == 1 + lost_times
    assert [session.closed for session in place.sessions] == [1] * lost_times + [0]
    assert place.open == place.sessions[-1:]


def test_a_loss_without_recovery_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch, [0, 0])
    place.check()
    place.handle.recovers = False
    place.sessions[0].error = attnd.Unavailable("lost")
    with pytest.raises(attnd.Unavailable):
        place.check()


@pytest.mark.parametrize("losses", [4, 5])
def test_losses_without_end(monkeypatch: pytest.MonkeyPatch, losses: int) -> None:
    place = Place(monkeypatch, [0, 1])
    left = [losses]
    real = Session.attend

    def lose(self: Session, *given: Any, **more: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise attnd.Unavailable("lost")
        return real(self, *given, **more)

    monkeypatch.setattr(Session, "attend", lose)
    if losses == 4:
        place.check()
    else:
        with pytest.raises(attnd.Unavailable):
            place.check()


@pytest.mark.parametrize("change", ["other rows", "other masks of one source", "a source without tokens"])
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    from attnd.transformers import Refused

    place = Place(monkeypatch, [0, 0, 1], MASKS["padding"])
    place.check()
    assert place.mask is not None
    if change == "other rows":
        place.states, place.mask = place.states[:2], place.mask[:2]
    else:
        place.mask = place.mask.clone()
        if change == "a source without tokens":
            place.mask[2] = False
        else:
            place.mask[1, 0, 0, 0] = False
    with pytest.raises(Refused):
        place.check()


def test_a_mask_that_changes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch, [0, 0, 1], MASKS["padding"])
    place.check()
    assert place.mask is not None
    for _ in range(2):
        place.mask = ~place.mask
        place.check(2)
    place.mask = None
    place.check()


def test_another_batch_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch, [0, 0, 1], MASKS["padding"])
    place.check()
    place.reorder([2, 0, 0])
    place.store.close()
    assert place.open == []
    assert place.sessions[0].closed == 1
    assert place.store.length(0) == 0
    place.states, place.mask = torch.randn(2, 7, HEADS * DIM), None
    place.check(2)
    assert place.sessions[1].options["max_source_tokens"] == 7
