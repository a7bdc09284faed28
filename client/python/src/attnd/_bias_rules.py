"""Computes a bias table's values at offsets: bit for bit the server's floats."""

from __future__ import annotations

import bisect
import math
from typing import Any, List, NamedTuple, Optional

import numpy as np

from attnd._hf_log_table import DECISIVE
from attnd.errors import InvalidArgument, ResourceExhausted
from attnd.models import AlibiSlopes, PerOffset, Rule, T5Buckets, Table

MAX_VALUES = 1 << 24
_MAX_DISTANCE = 1 << 48
_MAX_START = 1 << 32
_BELOW = 0x80000000
_DECISIVE = {entry & ~_BELOW: -1 if entry & _BELOW else 1 for entry in DECISIVE}


class HeldTable(NamedTuple):
    """A table that has been checked.

    Attributes:
        rule: with float32 arrays of the right shape.
        bidirectional: whether keys after the query have biases of their own.
        heads: number of heads.
        first_distances: of T5's buckets on one side, ascending; empty for other rules.
    """

    rule: Rule
    bidirectional: bool
    heads: int
    first_distances: List[int]

    def buckets(self, offsets: Any) -> Any:
        """int64 bucket of each offset; None if the rule has none. In a causal table negative offsets have bucket 0."""
        if not isinstance(self.rule, T5Buckets):
            return None
        buckets = np.searchsorted(np.array(self.first_distances), np.abs(offsets), side="right") - 1
        after = buckets + len(self.first_distances) if self.bidirectional else 0
        return np.where(offsets < 0, after, buckets)

    def values(self, head: int, offsets: Any) -> Any:
        """float32 bias of each offset in one head."""
        rule = self.rule
        if isinstance(rule, T5Buckets):
            return _held(rule.values)[self.buckets(offsets), head]
        if isinstance(rule, AlibiSlopes):
            return np.float32(0) - _held(rule.slopes)[head] * np.abs(offsets).astype(np.float32)
        row = _held(rule.values)[head]
        return row[np.clip(offsets, rule.min_offset, rule.min_offset + len(row) - 1) - rule.min_offset]

    @property
    def parameters_per_head(self) -> int:
        """Number of buckets (T5), 1 (ALiBi's slope), or number of offsets with a value."""
        if isinstance(self.rule, T5Buckets):
            return self.rule.num_buckets
        return 1 if isinstance(self.rule, AlibiSlopes) else int(_held(self.rule.values).shape[1])

    @property
    def saturates_at(self) -> Optional[int]:
        """The distance from which on all keys before the query share a value; None if there is none."""
        if isinstance(self.rule, T5Buckets):
            return self.first_distances[-1]
        if isinstance(self.rule, AlibiSlopes):
            return None
        return max(0, self.rule.min_offset + self.parameters_per_head - 1)


def held(table: Table) -> HeldTable:
    """Checks a table. Raises InvalidArgument and ResourceExhausted as the server does."""
    rule, heads = table.rule, table.heads
    if isinstance(rule, T5Buckets):
        return _t5(rule, table.bidirectional, heads)
    if isinstance(rule, AlibiSlopes):
        slopes = _floats("slopes", rule.slopes, 1)
        if len(slopes) == 0:
            raise InvalidArgument.of("heads", "at least 1", "0")
        return HeldTable(AlibiSlopes(slopes), table.bidirectional, len(slopes), [])
    if isinstance(rule, PerOffset):
        values = _floats("values", rule.values, 2)
        return per_offset(rule.min_offset, values.reshape(-1), int(values.shape[0]))
    raise InvalidArgument.of("rule", "T5Buckets, AlibiSlopes or PerOffset", f"a {type(rule).__qualname__}")


def t5(num_buckets: int, max_distance: int, bidirectional: bool, values: Any, heads: int) -> HeldTable:
    """Makes a table of T5's rule from flat values, by bucket and then head."""
    _check_t5(num_buckets, max_distance, bidirectional)
    if len(values) != num_buckets * heads:
        raise InvalidArgument.of("values", f"{num_buckets} buckets x {heads} heads", str(len(values)))
    first = first_distances(num_buckets // 2 if bidirectional else num_buckets, max_distance)
    offsets = first[-1] * (2 if bidirectional else 1) + 1
    _check_size("max_distance", heads, offsets)
    rule = T5Buckets(num_buckets, max_distance, values.reshape(num_buckets, heads))
    return HeldTable(rule, bidirectional, heads, first)


def per_offset(min_offset: int, values: Any, heads: int) -> HeldTable:
    """Makes a table with a value per offset from ``min_offset`` on, from flat values, by head and then offset."""
    if len(values) == 0 or heads < 1 or len(values) % heads != 0:
        raise InvalidArgument.of("values", f"a multiple of {heads} heads, at least one offset", str(len(values)))
    if abs(min_offset) > _MAX_START:
        raise InvalidArgument.of("min_offset", f"at most {_MAX_START} either way", str(min_offset))
    _check_size("values", heads, len(values) // heads)
    return HeldTable(PerOffset(min_offset, values.reshape(heads, -1)), min_offset < 0, heads, [])


def paper_slopes(heads: int) -> Any:
    """float32 [heads]: ALiBi's slopes as Press, Smith and Lewis (2022) define them for a number of heads.

    For a power of two n: 2^(-8 i / n). For other counts: those of the largest power of two below it, then every second
    slope of twice that power.
    """
    power = 1 << (heads.bit_length() - 1)
    places = [(i, power) for i in range(1, power + 1)]
    places += [(2 * i + 1, 2 * power) for i in range(heads - power)]
    return np.array([2.0 ** (-8.0 * i / n) for i, n in places]).astype(np.float32)


def random_values(count: int, seed: int) -> Any:
    """float32 [count], uniform in [-1, 1): the upper 24 bits of SplitMix64's outputs (Steele, Lea and Flood 2014)."""
    gamma, one, two = 0x9E3779B97F4A7C15, np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
    # Products of uint64 arrays wrap around, as SplitMix64 requires.
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(gamma)
    z = (z ^ (z >> np.uint64(30))) * one
    z = (z ^ (z >> np.uint64(27))) * two
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1)


def first_distances(buckets: int, max_distance: int) -> List[int]:
    """The smallest distance in each bucket of one side, as in Hugging Face's T5Attention: see t5_buckets.cc."""
    max_exact = buckets // 2
    divisor = np.float32(math.log(max_distance / max_exact))
    factor, room = np.float32(buckets - max_exact), buckets - 1 - max_exact

    def bucket_of(distance: int) -> int:
        position = _hugging_face_log(np.float32(distance) / np.float32(max_exact)) / divisor * factor
        return max_exact + min(room, int(position))

    first = list(range(max_exact + 1))
    for bucket in range(max_exact + 1, buckets):
        begin, step = first[-1], 1
        while bucket_of(begin + step - 1) < bucket:
            begin += step
            step *= 2
        while step > 1:
            half = step // 2
            if bucket_of(begin + half - 1) < bucket:
                begin += half
            step -= half
        first.append(begin)
    return first[:buckets]


def bucket_of_distance(first: List[int], distance: int) -> int:
    """The bucket of a ``distance`` >= 0."""
    return bisect.bisect_right(first, distance) - 1


def _hugging_face_log(x: Any) -> Any:
    """The float32 logarithm, with PyTorch's rounding where that decides a bucket: see hf_log.h."""
    correct = np.float32(math.log(float(x)))
    step = _DECISIVE.get(int(x.view(np.uint32)))
    if step is None:
        return correct
    return np.uint32(int(correct.view(np.uint32)) + step).view(np.float32)


def _t5(rule: T5Buckets, bidirectional: bool, heads: int) -> HeldTable:
    values = _floats("values", rule.values, 2)
    if heads < 1:
        raise InvalidArgument.of("heads", "at least 1", str(heads))
    return t5(rule.num_buckets, rule.max_distance, bidirectional, values.reshape(-1), heads)


def _check_t5(num_buckets: int, max_distance: int, bidirectional: bool) -> None:
    least = 4 if bidirectional else 2
    if num_buckets < least:
        note = " (bidirectional)" if bidirectional else ""
        raise InvalidArgument.of("num_buckets", f"at least {least}{note}", str(num_buckets))
    max_exact = (num_buckets // 2 if bidirectional else num_buckets) // 2
    if max_distance <= max_exact:
        expected = f"more than {max_exact} (the distances with a bucket each)"
        raise InvalidArgument.of("max_distance", expected, str(max_distance))
    if max_distance > _MAX_DISTANCE:
        raise InvalidArgument.of("max_distance", f"at most {_MAX_DISTANCE}", str(max_distance))


def _check_size(field: str, heads: int, offsets: int) -> None:
    if heads * offsets > MAX_VALUES:
        expected = f"a table of at most {MAX_VALUES} values (max_table_values)"
        raise ResourceExhausted.of(field, expected, f"{offsets} different offsets for each of {heads} heads")


def _floats(field: str, values: Any, rank: int) -> Any:
    """Converts values to float32, and checks that they have this rank and are finite."""
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise InvalidArgument.of(field, "numbers", repr(values)[:80]) from None
    if array.ndim != rank:
        raise InvalidArgument.of(field, f"{rank} dimensions", str(array.ndim))
    if not np.isfinite(array).all():
        raise InvalidArgument.of(field, "finite values", "others")
    return array


def _held(values: Any) -> Any:
    """The values of a checked rule, which are never None."""
    assert values is not None
    return values
