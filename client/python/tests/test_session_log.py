"""The log of a session's steps against plain lists, and its bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attnd._dtypes import BF16, FP16, FP32, STORAGE
from attnd._rounding import rounded
from attnd._session_log import CHUNK, SessionLog
from attnd.v1 import session_pb2

HEADS, DIM, VALUE_DIM = 2, 4, 3
ROWS, SOURCES = 4, 2
# Of a chunk in float32.
CHUNK_BYTES = HEADS * CHUNK * (DIM + VALUE_DIM) * 4


def opening(dtype: int = FP32, kinds: tuple[int, ...] = (1, 2, 1)) -> session_pb2.SessionOpen:
    found = session_pb2.SessionOpen(rows=ROWS, sources=SOURCES, dtype=dtype)  # type: ignore[arg-type]
    for kind in kinds:
        found.layers.add(kind=kind, heads=HEADS, head_dim=DIM, value_head_dim=VALUE_DIM)  # type: ignore[arg-type]
    return found


def tokens(random: np.random.Generator, count: int, length: int) -> list[Any]:
    return [random.standard_normal((count, HEADS, length, dim)).astype(np.float32) for dim in (DIM, VALUE_DIM)]


def said_again(log: SessionLog, layer: int, most_bytes: int) -> list[Any]:
    """What each row or source has by the log's pieces: k and v side by side, [tokens, heads, elements]."""
    found: list[list[Any]] = [[] for _ in log.lengths(layer)]
    for piece in log.pieces(layer, most_bytes):
        assert piece.before == [len(one) for one in found]
        for i, length in enumerate(piece.lengths):
            found[i] += list(np.concatenate([piece.k[i], piece.v[i]], axis=-1).transpose(1, 0, 2)[:length])
    return found


@pytest.mark.parametrize("most_bytes", [1, 1500, 1 << 20])
@pytest.mark.parametrize("seed", range(5))
def test_the_log_has_what_lists_have(seed: int, most_bytes: int) -> None:
    random = np.random.default_rng(seed)
    log = SessionLog(opening(), 1 << 30)
    lists: list[list[list[Any]]] = [[[] for _ in range(count)] for count in (ROWS, SOURCES, ROWS)]
    key_starts, row_sources = [0] * ROWS, [0, 0, 1, 1]
    for _ in range(60):
        step = session_pb2.SessionStep()
        layer = int(random.integers(3))
        count = SOURCES if layer == 1 else ROWS
        if random.random() < 0.4:
            step.reorder.extend(random.integers(ROWS, size=ROWS).tolist())
            lists[0], lists[2] = ([list(rows[i]) for i in step.reorder] for rows in (lists[0], lists[2]))
            key_starts, row_sources = ([each[i] for i in step.reorder] for each in (key_starts, row_sources))
        if random.random() < 0.3:
            step.truncate.extend(random.integers(100, size=ROWS).tolist())
            for row, length in enumerate(step.truncate):
                for layers in (lists[0], lists[2]):
                    del layers[row][length:]
        if random.random() < 0.2:
            key_starts = random.integers(9, size=ROWS).tolist()
            step.key_starts.extend(key_starts)
        length = int(random.choice([1, 1, 3, 50]))
        k, v = tokens(random, count, length)
        lengths = [length] * count
        if random.random() < 0.5:
            lengths = random.integers(length + 1, size=count).tolist()
            step.key_lengths.extend(lengths)
        for i, one in enumerate(lists[layer]):
            one += list(np.concatenate([k[i], v[i]], axis=-1).transpose(1, 0, 2)[: lengths[i]])
        log.note(layer, step if step.ByteSize() else None, (k, v), FP32)
        k[:] = v[:] = 0  # the caller's arrays are the caller's
    for layer in range(3):
        assert log.lengths(layer) == tuple(map(len, lists[layer]))
        for one, other in zip(said_again(log, layer, most_bytes), lists[layer]):
            assert np.array_equal(one, other)
    assert list(log.opening().row_sources) == row_sources
    starts = [list(step.key_starts) for step in log.settings() if step.key_starts]
    assert starts == ([key_starts] if any(key_starts) else [])


@pytest.mark.parametrize("cut", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 1])
@pytest.mark.parametrize("more", [1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_rows_that_are_cut_anywhere_and_go_on(cut: int, more: int) -> None:
    """Also beside rows that had the same tokens, and keep them."""
    random = np.random.default_rng(0)
    log = SessionLog(opening(), 1 << 30)
    before, after = tokens(random, ROWS, 3 * CHUNK), tokens(random, ROWS, more)
    log.note(0, None, before, FP32)
    log.note(0, session_pb2.SessionStep(reorder=[0, 0, 0, 3]), (), 0)
    log.note(0, session_pb2.SessionStep(truncate=[cut, 1000, cut, 1000]), after, FP32)
    kept = min(cut, 3 * CHUNK)
    lengths = (kept + more, 3 * CHUNK + more) * 2
    assert log.lengths(0) == lengths
    for row, found in enumerate(said_again(log, 0, 5000)):
        source = 3 if row == 3 else 0
        both = [np.concatenate(pair, axis=-1).transpose(0, 2, 1, 3) for pair in (before, after)]
        expected = np.concatenate([both[0][source, : lengths[row] - more], both[1][row]])
        assert np.array_equal(found, expected)


def test_rows_that_were_one_share_what_they_have() -> None:
    random = np.random.default_rng(0)
    log = SessionLog(opening(), 1 << 30)
    log.note(0, None, tokens(random, ROWS, 10 * CHUNK + 1), FP32)
    assert log.used_bytes == ROWS * 11 * CHUNK_BYTES
    log.note(0, session_pb2.SessionStep(reorder=[2] * ROWS), (), 0)
    assert log.used_bytes == 11 * CHUNK_BYTES  # the others' is forgotten
    log.note(0, None, tokens(random, ROWS, 1), FP32)
    assert log.used_bytes == (10 + ROWS) * CHUNK_BYTES
    log.note(0, session_pb2.SessionStep(truncate=[0] * ROWS), (), 0)
    assert log.used_bytes == 0


def test_a_log_that_would_be_too_large_is_given_up() -> None:
    random = np.random.default_rng(0)
    log = SessionLog(opening(), ROWS * CHUNK_BYTES)
    log.note(0, None, tokens(random, ROWS, CHUNK), FP32)
    assert (log.kept, log.used_bytes) == (True, ROWS * CHUNK_BYTES)
    # What a step drops makes room for what it appends.
    log.note(0, session_pb2.SessionStep(truncate=[0] * ROWS), tokens(random, ROWS, CHUNK), FP32)
    assert log.kept
    log.note(0, None, tokens(random, ROWS, 1), FP32)
    assert (log.kept, log.used_bytes) == (False, 0)
    log.note(0, session_pb2.SessionStep(truncate=[0] * ROWS), tokens(random, ROWS, 1), FP32)
    assert (log.kept, log.used_bytes) == (False, 0)


def test_a_key_mask_counts() -> None:
    log = SessionLog(opening(), 1000)
    log.note(1, session_pb2.SessionStep(key_bits=b"a" * 600, key_bits_length=2400), (), 0)
    log.note(1, session_pb2.SessionStep(key_bits=b"b" * 1000, key_bits_length=4000), (), 0)
    assert (log.kept, log.used_bytes) == (True, 1000)
    (step,) = log.settings()
    assert (step.layer, step.key_bits, step.key_bits_length) == (1, b"b" * 1000, 4000)
    log.note(1, session_pb2.SessionStep(key_bits=b"c" * 1001, key_bits_length=4004), (), 0)
    assert not log.kept


@pytest.mark.parametrize("code", [FP16, BF16])
def test_what_both_types_have_stays(code: int) -> None:
    bits = np.arange(1 << 16, dtype="<u2").view(STORAGE[code])
    wide = rounded(bits, code, FP32)
    again = rounded(wide, FP32, code).view("<u2")
    assert np.array_equal(np.where(np.isnan(wide), 0, again), np.where(np.isnan(wide), 0, bits.view("<u2")))
    assert np.isnan(rounded(rounded(wide, FP32, code), code, FP32)[np.isnan(wide)]).all()


def test_bfloat16_rounds_to_the_nearest() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 2**-8 + 2**-20, 1 + 3 * 2**-8, 3.4e38, np.inf, np.nan, -0.0], "<f4")
    expected = np.array([1.0, 1.0, 1 + 2**-7, 1 + 2**-6, np.inf, np.inf, np.nan, -0.0], "<f4")
    found = rounded(rounded(values, FP32, BF16), BF16, FP32)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(expected))
    odd = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001], "<u4").view("<f4")
    assert np.isnan(rounded(rounded(odd, FP32, BF16), BF16, FP32)).all()
