"""Parts of attnd.transformers alone: memory that is used again, rows of one source, masks, what attach() opens."""

from __future__ import annotations

import gc
import itertools
from typing import Any, Callable, ClassVar, Dict, List, Optional

import numpy as np
import pytest

import attnd

from .libraries import torch
from .models import make


class Client:
    """Makes ordinary memory. `made` has the sizes."""

    target = "fake"

    def __init__(self) -> None:
        self.made: List[int] = []
        self.error: Optional[Exception] = None
        self.closed = 0

    def empty(self, count: int, dtype: Any) -> Any:
        if self.error is not None:
            raise self.error
        self.made.append(count * 4)
        return np.zeros(count, dtype)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def client() -> Client:
    return Client()


def tensors_of(client: Client) -> Any:
    from attnd.transformers._memory import SharedTensors

    return SharedTensors(client)


# What may refer to a tensor's memory.
HOLDERS: Dict[str, Callable[[Any], Any]] = {
    "the tensor": lambda tensor: tensor,
    "a view": lambda tensor: tensor[:, 1:],
    "a transposed view": lambda tensor: tensor.transpose(0, 1),
    "another shape": lambda tensor: tensor.view(-1),
    "a detached tensor": lambda tensor: tensor.detach(),
    "an array": lambda tensor: tensor.view(torch.uint8).numpy(),
    "a storage": lambda tensor: tensor.untyped_storage(),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_memory_is_used_again_after_its_last_holder(client: Client, holder: str, dtype: str) -> None:
    memory = tensors_of(client)
    kind = getattr(torch, dtype)
    first = memory.make((4, 6), kind)
    assert (first.shape, first.dtype) == ((4, 6), kind)
    address = first.data_ptr()
    held = HOLDERS[holder](first)
    del first
    gc.collect()
    second = memory.make((4, 6), kind)
    assert second.data_ptr() != address
    assert len(client.made) == 2
    del held
    gc.collect()
    third = memory.make((4, 6), kind)
    assert third.data_ptr() == address
    assert len(client.made) == 2


@pytest.mark.parametrize(("size", "fits"), [(24, False), (25, True), (49, True), (50, True), (51, False)])
def test_which_memory_fits(client: Client, size: int, fits: bool) -> None:
    """At most twice as much as is needed."""
    memory = tensors_of(client)
    memory.make((50,), torch.float32)
    gc.collect()
    assert memory.make((size,), torch.float32).shape == (size,)
    assert len(client.made) == (1 if fits else 2)


@pytest.mark.parametrize("over", [0, 1, 5])
def test_no_more_idle_blocks_than_the_limit(client: Client, over: int) -> None:
    from attnd.transformers import _memory

    memory = tensors_of(client)
    held = [memory.make((10,), torch.float32) for _ in range(_memory._MAX_IDLE + over)]
    del held
    gc.collect()
    assert memory.idle == _memory._MAX_IDLE


@pytest.mark.parametrize(("most", "idle"), [(400, 10), (399, 9), (240, 6), (100, 6)])
def test_no_more_idle_bytes_than_the_limit(
    client: Client, monkeypatch: pytest.MonkeyPatch, most: int, idle: int
) -> None:
    """But for some blocks of large tensors, which one thread needs."""
    monkeypatch.setattr("attnd.transformers._memory._MAX_IDLE_BYTES", most)
    memory = tensors_of(client)
    held = [memory.make((10,), torch.float32) for _ in range(10)]
    del held
    gc.collect()
    assert memory.idle == idle


def test_where_there_is_no_memory(client: Client) -> None:
    memory = tensors_of(client)
    assert memory.make((0, 3), torch.float32) is None
    assert memory.make((3,), torch.float64) is None
    for error in (attnd.ResourceExhausted("none"), attnd.FailedPrecondition("closed")):
        client.error = error
        assert memory.make((3,), torch.float32) is None
    client.error = None
    kept = memory.make((3,), torch.float32)
    memory.close()
    assert memory.make((3,), torch.float32) is None
    kept.fill_(7)
    del kept
    gc.collect()
    assert memory.idle == 0


@pytest.mark.parametrize("length", [1, 5, 16, 17, 100])
def test_rows_that_differ_anywhere_have_sources_of_their_own(length: int) -> None:
    from attnd.transformers._sources import find_sources

    same = torch.randn(1, length, 2).expand(4, length, 2).clone()
    assert find_sources(same, None) == ([0, 0, 0, 0], [0])
    for place in range(2 * length):
        states = same.clone()
        states.view(4, -1)[2, place] += 1
        assert find_sources(states, None) == ([0, 0, 1, 0], [0, 2]), place


def test_rows_with_other_masks_have_sources_of_their_own() -> None:
    from attnd.transformers._sources import find_sources

    same = torch.randn(1, 5, 2).expand(4, 5, 2)
    visible = np.ones((4, 5), bool)
    assert find_sources(same, visible).of_rows == [0, 0, 0, 0]
    for row, key in itertools.product(range(1, 4), range(5)):
        other = visible.copy()
        other[row, key] = False
        expected = [0, 0, 0, 0]
        expected[row] = 1
        assert find_sources(same, other).of_rows == expected
    found = find_sources(torch.stack([same[0], same[0] + 1, same[0], same[0] + 1, same[0] + 2]), None)
    assert found == ([0, 1, 0, 1, 2], [0, 1, 4])
    assert torch.equal(found.select(torch.arange(5)), torch.tensor([0, 1, 4]))


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_every_mask_is_said_as_it_is(length: int) -> None:
    """Of two rows, by all that can be masked."""
    from attnd.transformers._masks import keys_of

    for bits in itertools.product([False, True], repeat=2 * length):
        visible = np.array(bits).reshape(2, length)
        said = keys_of(visible) or {}
        found = np.ones((2, length), bool)
        for row in range(2):
            if "key_lengths" in said:
                found[row, said["key_lengths"][row] :] = False
            if "key_starts" in said:
                found[row, : said["key_starts"][row]] = False
        if "key_mask" in said:
            found &= said["key_mask"]
        assert np.array_equal(found, visible), said
        assert set(said) <= {"key_lengths", "key_starts", "key_mask"}


@pytest.mark.parametrize("as_bool", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(1, 3), (2, 3), (3, 3)])
def test_masks_of_decoders(queries: int, keys: int, as_bool: bool) -> None:
    """Every mask of a few queries and keys is a causal one with padding on the left, or it is refused or None."""
    from attnd.transformers import Refused
    from attnd.transformers._decoder_masks import left_padding, visible_and_causal

    causal = np.tril(np.ones((queries, keys), bool), keys - queries)
    for bits in itertools.product([False, True], repeat=queries * keys):
        seen = np.array(bits).reshape(queries, keys)
        mask = torch.from_numpy(seen)[None, None]
        if not as_bool:
            mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        last = seen[-1]
        # A query that is padding itself may say what it likes.
        right = all((seen[i] == (last & causal[i])).all() or not last[keys - queries + i] for i in range(queries))
        try:
            visible = visible_and_causal(mask, 1, keys)
        except Refused:
            assert not right or queries == 1
            continue
        assert right or queries == 1
        assert np.array_equal(np.ones((1, keys), bool) if visible is None else visible, last[None])
        starts = left_padding(visible)
        first = int(last.argmax())
        if visible is None:
            assert starts == ()
        elif last[first:].all():
            assert starts == (first,)
        else:
            assert starts is None


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_pieces_cover_the_tokens_once(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnd.transformers import _pieces

    width = 2 * layers * 2 * 4 * 4  # bytes of a token
    for tokens, most in itertools.product(
        range(8), (1, width - 1, width, 2 * width, 2 * width + 1, 3 * width, 1 << 20)
    ):
        monkeypatch.setattr(_pieces, "_PIECE_BYTES", most)
        key = torch.randn(layers, tokens, 2, 4)
        parts = list(_pieces.pieces(key, key + 1))
        assert sum(part[0].shape[1] for part in parts) == tokens
        assert all(part[0].shape[1] == 1 or part[0].shape[1] * width <= most for part in parts)
        if parts:
            assert torch.equal(torch.cat([part[0] for part in parts], 1), key)
            assert torch.equal(torch.cat([part[1] for part in parts], 1), key + 1)


class Connection:
    """Instead of a server."""

    made: ClassVar[List[Connection]] = []

    def __init__(self, target: Any, timeout: float) -> None:
        self.client, self.target, self.origin = Client(), "fake", "fake"
        self.closed = 0
        self.made.append(self)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("step", ["Handle", "Handle.tables", "_calibrate.measure", "_calibrate_decoder.measure", None])
def test_an_attach_that_fails_closes_what_it_opened(monkeypatch: pytest.MonkeyPatch, step: Optional[str]) -> None:
    from attnd.transformers import _attach

    class StepError(BaseException):
        pass

    def fail(*_: Any, **__: Any) -> Any:
        raise StepError

    monkeypatch.setattr(Connection, "made", [])
    monkeypatch.setattr(_attach, "Connection", Connection)
    monkeypatch.setattr(_attach.Handle, "tables", lambda self: {})
    for name in ("_calibrate", "_calibrate_decoder"):
        monkeypatch.setattr(f"attnd.transformers.{name}.measure", lambda *_: 5)
    if step is not None:
        monkeypatch.setattr(f"attnd.transformers._attach.{step}", fail)
    model = make("T5 with decoder")
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    if step is None:
        handle = attnd.transformers.attach(model)
        assert (handle.min_length, handle.min_cached_tokens) == (5, 5)
        assert Connection.made[0].closed == 0
        handle.detach()
    else:
        with pytest.raises(StepError):
            attnd.transformers.attach(model)
    assert [connection.closed for connection in Connection.made] == [1]
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert model.encoder.config._attn_implementation == "sdpa"


class PrivateServer(attnd.LocalServer):
    """Is not started."""

    target = "127.0.0.1:1"  # type: ignore[assignment]

    def __init__(self) -> None:
        self.closed = 0
        self.clients: List[Client] = []

    def start(self) -> Any:
        return self

    def client(self, **_: Any) -> Any:
        self.clients.append(Client())
        return self.clients[-1]

    def close(self) -> None:
        self.closed += 1


def test_what_a_connection_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what it has made itself."""
    from attnd.transformers import _server

    made: List[PrivateServer] = []
    monkeypatch.setattr(_server, "local_server", lambda: made.append(PrivateServer()) or made[-1])
    private = _server.Connection(None, 1.0)
    private.close()
    assert [server.closed for server in made] == [1]
    with pytest.raises(attnd.FailedPrecondition):
        private.client.server_info()
    own = _server.Connection("127.0.0.1:1", 1.0)
    own.close()
    with pytest.raises(attnd.FailedPrecondition):
        own.client.server_info()
    with attnd.Client("127.0.0.1:1") as theirs:
        _server.Connection(theirs, 1.0).close()
        assert not theirs._core.closed
    server = PrivateServer()
    connection = _server.Connection(server, 1.0)
    connection.close()
    assert server.closed == 0
    assert [client.closed for client in server.clients] == [1]
    assert len(made) == 1
