"""Where each tensor of a call goes: named where it lies, sent in the message, or copied; and the memory for copies."""

from __future__ import annotations

import itertools
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import pytest

from attnd._shm import SharedMemory, aligned
from attnd._staging import MAX_SENT, Block, Staged, Stager, StagingPool
from attnd.v1 import attention_pb2

from .fake_server import FakeServer


class Times:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def pool(memory: SharedMemory, times: Times) -> Iterator[StagingPool]:
    pool = StagingPool(memory, times)
    yield pool
    pool.close()


def made(memory: SharedMemory, size: int) -> Block:
    return Block(*memory.allocate(size))


def idle(pool: StagingPool) -> List[Block]:
    """What is kept, after a check of what is counted."""
    blocks = [block for block, _ in pool._idle]
    assert pool.idle_bytes == sum(block.region.size for block in blocks)
    return blocks


# By the size that is asked for: whether a block of 6400 bytes is given.
FITS = {3199: False, 3200: True, 3264: True, 6336: True, 6399: True, 6400: True, 6401: False, 6464: False}


@pytest.mark.parametrize("size", FITS)
def test_which_block_fits(pool: StagingPool, memory: SharedMemory, size: int) -> None:
    block = made(memory, 6400)
    pool.put(block)
    found = pool.get(size)
    assert found is not None
    assert (found is block) == FITS[size]
    assert found.region.size >= size
    assert idle(pool) == ([] if FITS[size] else [block])


def test_the_smallest_that_fits_and_the_latest_of_equals(pool: StagingPool, memory: SharedMemory) -> None:
    blocks = [made(memory, size) for size in (8192, 4096, 5120, 4096, 8192, 2048)]
    for block in blocks:
        pool.put(block)
    assert [pool.get(4096) for _ in range(4)] == [blocks[3], blocks[1], blocks[2], blocks[4]]
    assert idle(pool) == [blocks[0], blocks[5]]


@pytest.mark.parametrize("over", [0, 1])
def test_no_more_blocks_than_the_limit(
    pool: StagingPool, memory: SharedMemory, monkeypatch: pytest.MonkeyPatch, over: int
) -> None:
    monkeypatch.setattr(StagingPool, "MAX_IDLE", 3)
    blocks = [made(memory, 4096) for _ in range(3 + over)]
    for block in blocks:
        pool.put(block)
    assert idle(pool) == blocks[over:]  # the oldest goes


@pytest.mark.parametrize("over", [0, 1])
def test_no_more_bytes_than_the_limit(
    pool: StagingPool, memory: SharedMemory, monkeypatch: pytest.MonkeyPatch, over: int
) -> None:
    monkeypatch.setattr(StagingPool, "MAX_IDLE_BYTES", 3 * 4096 - over)
    blocks = [made(memory, 4096) for _ in range(3)]
    for block in blocks:
        pool.put(block)
    assert idle(pool) == blocks[over:]
    large = made(memory, 3 * 4096)
    pool.put(large)  # a block that is larger than all of the limit is not kept, and the others stay
    assert idle(pool) == (blocks[1:] if over else [large])


@pytest.mark.parametrize("how", ["get", "put"])
@pytest.mark.parametrize("late", [0.0, 0.01])
def test_not_for_longer_than_the_limit(
    pool: StagingPool, memory: SharedMemory, times: Times, late: float, how: str
) -> None:
    old, young = made(memory, 4096), made(memory, 4096)
    pool.put(old)
    times.now += 4.0
    pool.put(young)
    times.now += StagingPool.MAX_IDLE_TIME - 4.0 + late
    if how == "get":
        assert pool.get(1 << 20) is not None
    else:
        pool.put(made(memory, 1 << 20))
    kept = [young] if late else [old, young]
    assert idle(pool)[: len(kept)] == kept


def test_a_closed_pool_keeps_nothing(pool: StagingPool, memory: SharedMemory) -> None:
    blocks = [made(memory, 4096) for _ in range(2)]
    pool.put(blocks[0])
    pool.close()
    assert idle(pool) == []
    pool.put(blocks[1])
    assert idle(pool) == []
    del blocks
    assert memory.count == 0


def test_what_is_freed_is_freed_at_the_server(pool: StagingPool, memory: SharedMemory, fake: FakeServer) -> None:
    block = made(memory, 4096)
    assert memory.keeper.register(block.region)
    pool.put(block)
    del block
    assert memory.count == len(fake.regions) == 1
    pool.close()
    assert memory.count == 0


# Where a tensor can lie.
PLACES = ("ordinary", "shared", "with gaps", "ordinary with gaps")
OUTS = (None, *PLACES, "over the inputs")
SIZES = {"small": (1, 4, 3, 16), "large": (1, 4, 33, 64)}


def lying(memory: SharedMemory, place: str, shape: Tuple[int, ...], seed: int) -> Any:
    """An array of random numbers there."""
    wide = shape if "gaps" not in place else (*shape[:3], 2 * shape[3])
    if place.startswith("ordinary"):
        whole = np.empty(wide, np.float32)
    else:
        whole = memory.empty(4 * int(np.prod(wide))).view(np.float32).reshape(wide)
    array = whole if wide == shape else whole[..., ::2]
    array[...] = np.random.default_rng(seed).standard_normal(shape)
    return array


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("enabled", [True, False])
def test_every_place_of_every_tensor(memory: SharedMemory, fake: FakeServer, size: str, enabled: bool) -> None:
    shape = SIZES[size]
    stager = Stager(memory, enabled)
    inputs = {(place, i): lying(memory, place, shape, i) for place in PLACES for i in range(3)}
    outs = {place: lying(memory, place, shape, 9) for place in PLACES}
    for places in itertools.product(PLACES, repeat=3):
        arrays = [inputs[place, i] for i, place in enumerate(places)]
        for out, log_sum_exp, may_send in itertools.product(OUTS, (False, True), (False, True)):
            destination = None if out is None else arrays[0] if out == "over the inputs" else outs[out]
            nbytes = arrays[0].nbytes
            lse_bytes = nbytes // shape[3] if log_sum_exp else 0
            overlaps = out == "over the inputs"
            before = stager.copied_in
            staged = stager.stage(arrays, destination, overlaps, nbytes, lse_bytes, may_send)
            named = [enabled and place == "shared" for place in places]
            writes = enabled and out == "shared"
            elsewhere = nbytes * (named.count(False) + (not writes)) + lse_bytes
            if elsewhere <= MAX_SENT and not (any(named) or writes) and not may_send:
                assert staged is None
                continue
            assert staged is not None
            copied = enabled and elsewhere > MAX_SENT
            assert stager.copied_in - before == (nbytes * named.count(False) if copied else 0)
            check(fake, staged, arrays, destination, named, writes, copied, lse_bytes)
            stager.finish(staged)
    stager.pool.close()


def check(
    fake: FakeServer,
    staged: Staged,
    arrays: List[Any],
    out: Optional[Any],
    named: List[bool],
    writes: bool,
    copied: bool,
    lse_bytes: int,
) -> None:
    """The names stand for the tensors' bytes, and what has none is sent."""
    names = attention_pb2.ComputeAttentionRequest.FromString(staged.names)
    nbytes = arrays[0].nbytes
    sent: Dict[int, Any] = dict(staged.sent)
    places: List[Tuple[bytes, int, int]] = []
    for i, (field, array) in enumerate(zip("qkv", arrays)):
        has_name = names.HasField(f"{field}_shared")
        assert has_name == (named[i] or copied)
        assert (100 + i in sent) == (not has_name)
        if has_name:
            place = getattr(names, f"{field}_shared")
            assert fake.memory(place, nbytes) == array.tobytes()
            assert place.offset % 64 == 0
            if not named[i]:
                places.append((place.region, place.offset, nbytes))
        else:
            assert sent[100 + i] is array
    assert staged.sent_bytes == sum(array.nbytes for _, array in staged.sent)
    assert names.HasField("output_shared") == (writes or copied)
    assert names.HasField("log_sum_exp_shared") == (copied and lse_bytes > 0)
    answered = (0 if writes or copied else nbytes) + (0 if copied else lse_bytes)
    assert staged.answered_bytes == answered
    for name, size, array in (
        ("output_shared", nbytes, staged.output),
        ("log_sum_exp_shared", lse_bytes, staged.log_sum_exp),
    ):
        assert (array is not None) == names.HasField(name)
        if array is None:
            continue
        place = getattr(names, name)
        fake.write(place, bytes([7]) * size)
        assert array.nbytes == size
        assert array.tobytes() == bytes([7]) * size
        if name != "output_shared" or not writes:
            places.append((place.region, place.offset, size))
    assert not writes or staged.output is out
    for (region, begin, size), (other, other_begin, _) in itertools.combinations(sorted(places), 2):
        assert region == other
        assert begin + size <= other_begin


@pytest.mark.parametrize("over", [0, 4])
def test_the_most_that_is_sent(memory: SharedMemory, over: int) -> None:
    """Two tensors are named; the others together have MAX_SENT bytes, or more."""
    stager = Stager(memory)
    shared = lying(memory, "shared", (1, 1, 16, 64), 0)
    last = np.zeros((1, 1, 1, (MAX_SENT - shared.nbytes - 64 + over) // 4), np.float32)
    staged = stager.stage([shared, shared, last], None, False, shared.nbytes, 64)
    assert staged is not None
    assert (staged.output is None) == (over == 0)
    assert staged.sent_bytes + staged.answered_bytes == (MAX_SENT if over == 0 else 0)
    stager.pool.close()


def test_a_region_of_many_fields_is_named_rightly(memory: SharedMemory, fake: FakeServer) -> None:
    """More than are remembered; and the same place for each of the tensors."""
    stager = Stager(memory)
    _array, region = memory.allocate(1 << 20)
    for _ in range(2):
        for offset in range(0, 3 << 16, 64):
            for which, field in ((0, "q"), (2, "v"), (3, "output")):
                name = stager._name(which, region, offset, float("inf"))
                assert name is not None
                place = getattr(attention_pb2.ComputeAttentionRequest.FromString(name), f"{field}_shared")
                assert (place.region, place.offset) == (region.handle, offset)
    assert len(region.fields) <= 1024


def test_a_name_of_a_server_before_is_not_used_again(memory: SharedMemory, fake: FakeServer) -> None:
    stager = Stager(memory)
    shared = lying(memory, "shared", (1, 1, 16, 64), 0)
    names = []
    for _ in range(3):
        staged = stager.stage([shared] * 3, shared, True, 64, 0)
        assert staged is not None
        assert staged.generation == memory.keeper.generation
        request = attention_pb2.ComputeAttentionRequest.FromString(staged.names)
        assert list(fake.regions) == [request.q_shared.region] == [request.v_shared.region]
        names.append(request.q_shared.region)
        fake.restart()
        memory.keeper.check()
    assert len(set(names)) == 3


@pytest.mark.parametrize("size", [1, 63, 64, 65, 128])
def test_aligned(size: int) -> None:
    assert aligned(size) % 64 == 0
    assert size <= aligned(size) < size + 64


def test_what_needs_no_wait(memory: SharedMemory) -> None:
    """Only then an event loop's thread stages a call by itself."""
    stager = Stager(memory)
    shared, ordinary = (lying(memory, place, (1, 1, 16, 64), 0) for place in ("shared", "ordinary"))
    gaps = lying(memory, "with gaps", (1, 1, 16, 64), 0)
    assert not stager.waits_for_nothing([shared], None, 1 << 20)  # it is to be registered
    assert stager.name(0, shared, float("inf")) is not None
    assert stager.waits_for_nothing([shared], None, 0)
    for other in (ordinary, gaps):
        assert stager.waits_for_nothing([shared, other], None, other.nbytes)
        assert not stager.waits_for_nothing([shared, other], None, other.nbytes - 1)
        assert not stager.waits_for_nothing([shared], other, other.nbytes - 1)
    assert Stager(memory, False).waits_for_nothing([ordinary], ordinary, 0)
