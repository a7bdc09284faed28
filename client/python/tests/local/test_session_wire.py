"""A session's datagrams, without a socket: limits, the order of answers, and the places of tensors."""

from __future__ import annotations

import itertools
import os
import struct
from typing import Any, List, Tuple

import numpy as np
import pytest

from attnd import _wire
from attnd._duplex import STEP, Question
from attnd._session_wire import BESIDE, SessionWire
from attnd._staging import MAX_SENT
from attnd.errors import Aborted, Internal, ResourceExhausted
from attnd.v1 import local_pb2, session_pb2

from .fake_server import MAGIC

MOST = 1 << 16
HANDLE = bytes(range(16))


def question(*sizes: int, body: bytes = b"", output: int = 0, log_sum_exp: int = 0) -> Question:
    tensors = [(number, np.full(size, 1 + i, np.uint8)) for i, (number, size) in enumerate(zip((100, 101, 102), sizes))]
    return Question(STEP, body, tensors, output, log_sum_exp)


def answer(code: int = 0, handle: bytes = HANDLE) -> memoryview:
    return memoryview(struct.pack("<QIi16s224s", MAGIC, 1, code, handle, b""))


@pytest.fixture
def wire() -> SessionWire:
    return SessionWire()


def with_region(wire: SessionWire, size: int) -> None:
    wire.replace_region(size)
    wire.hear(answer())


# (inputs, output, log-sum-exp): whether they travel in datagrams.
SENT: Any = [
    ((MAX_SENT,), 0, 0, True),
    ((MAX_SENT + 1,), 0, 0, False),
    ((MAX_SENT - 64,), 64, 0, True),
    ((MAX_SENT - 64,), 65, 0, False),
    ((MAX_SENT - 128, 64), 60, 4, True),
    ((MAX_SENT - 128, 64), 60, 5, False),
    ((), MAX_SENT, 0, True),
    ((), 0, MAX_SENT + 1, False),
    ((), 0, 0, True),
]


@pytest.mark.parametrize(("inputs", "output", "log_sum_exp", "sent"), SENT)
def test_what_travels_in_datagrams(
    wire: SessionWire, inputs: Tuple[int, ...], output: int, log_sum_exp: int, sent: bool
) -> None:
    asked = question(*inputs, output=output, log_sum_exp=log_sum_exp)
    needed = wire.shared_bytes(asked)
    assert (needed == 0) == sent
    if not sent:
        assert needed == sum(-(-size // 64) * 64 for size in (*inputs, output, log_sum_exp))


@pytest.mark.parametrize("over", [0, 1])
def test_tensors_that_leave_room_for_the_fields(wire: SessionWire, over: int) -> None:
    body = bytes(MOST - BESIDE - 5000 + over)
    assert (wire.shared_bytes(question(5000, body=body)) == 0) == (over == 0)


@pytest.mark.parametrize("over", [0, 1])
def test_the_largest_fields(wire: SessionWire, over: int) -> None:
    asked = question(64, body=bytes(MOST - BESIDE + over))
    if over == 0:
        assert wire.shared_bytes(asked) == 64
        return
    with pytest.raises(ResourceExhausted, match=f"at most {MOST - BESIDE} bytes") as caught:
        wire.shared_bytes(asked)
    assert caught.value.field == "step"


@pytest.mark.parametrize("over", [0, 1])
def test_results_that_leave_room_for_the_lengths_in_an_answer(wire: SessionWire, over: int) -> None:
    """A server with small datagrams: the lengths of all rows come with the output."""
    wire.most_bytes = 10_000
    size = wire.most_bytes - BESIDE - 5 * 1024 + over
    assert (wire.shared_bytes(question(output=size)) == 0) == (over == 0)


def test_whether_a_region_suits(wire: SessionWire) -> None:
    assert wire.has_room(0)
    assert not wire.has_room(1)
    with_region(wire, 1)
    size = 64 << 10
    assert wire.region is not None
    assert wire.region.size == size
    assert [wire.has_room(n) for n in (0, 1, size - 1, size, size + 1, size + 64)] == [True] * 4 + [False] * 2
    large = 32 << 20
    with_region(wire, large)
    assert wire.region is not None
    kept = wire.region.size
    assert kept >= large
    assert [wire.has_room(n) for n in (0, kept // 8, kept // 8 + 1, kept, kept + 1)] == [
        False,
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("size", [1, 1000, 52428, 52429, 65536, 65537, 1 << 20, (1 << 20) + 1])
def test_a_region_is_large_enough(wire: SessionWire, size: int) -> None:
    (register,) = wire.replace_region(size)
    assert wire.region is not None
    assert size * 1.25 <= wire.region.size < size * 1.25 + (64 << 10) + 1
    _, _, operation, said, _ = struct.unpack("<QIIQ16s", register.parts[0])
    assert (operation, said) == (1, wire.region.size)
    assert len(register.control) == 1


def test_the_region_before_is_released(wire: SessionWire) -> None:
    with_region(wire, 1)
    datagrams = wire.replace_region(100_000)
    operations = [struct.unpack("<QIIQ16s", datagram.parts[0]) for datagram in datagrams]
    assert [(operation, handle) for _, _, operation, _, handle in operations] == [(2, HANDLE), (1, bytes(16))]
    assert wire.registering
    wire.hear(answer(0, bytes(16)))  # to the release
    assert wire.registering
    assert wire.region is not None
    assert wire.region.handle is None
    wire.hear(answer(0, b"n" * 16))
    assert not wire.registering
    assert wire.region.handle == b"n" * 16
    (release,) = wire.replace_region(0)
    assert struct.unpack("<QIIQ16s", release.parts[0])[4] == b"n" * 16
    assert wire.region is None
    wire.hear(answer())
    assert wire.quiet


# What was sent, in order: each is answered, in order.
REGISTER, SIGN = "register", "sign"


@pytest.mark.parametrize("order", [*itertools.permutations([REGISTER, SIGN, SIGN]), (SIGN,), (REGISTER, REGISTER)])
def test_answers_belong_to_what_was_sent_in_that_order(wire: SessionWire, order: Tuple[str, ...]) -> None:
    sent: List[str] = []
    for what in order:
        if what == REGISTER:
            # The one before has not been answered, so there is nothing to release.
            sent += ["register"] * len(wire.replace_region(1))
        else:
            wire.sign_requested()
            sent.append("sign")
    assert len(sent) == len(order)
    last = max((i for i, what in enumerate(order) if what == REGISTER), default=-1)
    for i in range(len(order)):
        assert not wire.quiet
        if i <= last:
            assert wire.region is not None
        wire.hear(answer(0, bytes([i + 1]) * 16 if order[i] == REGISTER else bytes(16)))
    assert wire.quiet
    assert not wire.registering
    if last >= 0:
        assert wire.region is not None
        assert wire.region.handle == bytes([last + 1]) * 16
    with pytest.raises(Internal, match="not sent"):
        wire.hear(answer())


def test_a_refused_region_is_none(wire: SessionWire) -> None:
    wire.replace_region(1)
    wire.hear(answer(8))
    assert wire.region is None
    assert wire.quiet
    assert wire.has_room(0)
    assert not wire.has_room(1)


def test_a_registered_region_holds_no_descriptor(wire: SessionWire) -> None:
    wire.replace_region(1)
    assert wire.region is not None
    fd = wire.region.fd
    os.fstat(fd)
    wire.hear(answer())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    wire.region.array[:] = 7  # its memory stays


def test_a_region_that_was_not_registered_holds_none_either(wire: SessionWire) -> None:
    for way in ("replaced", "refused", "dropped"):
        wire.replace_region(1)
        assert wire.region is not None
        fd = wire.region.fd
        if way == "replaced":
            wire.replace_region(0)
            wire.hear(answer())
        elif way == "refused":
            wire.hear(answer(8))
        else:
            wire.drop()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize("sizes", [(1, 64, 65), (4096, 1, 1), (0, 0, 0), (100,), (3, 5)])
@pytest.mark.parametrize(("output", "log_sum_exp"), [(0, 0), (64, 0), (65, 3), (1, 64)])
def test_places(wire: SessionWire, sizes: Tuple[int, ...], output: int, log_sum_exp: int) -> None:
    """Each tensor has its own, and its name says where that is."""
    with_region(wire, 10_000)
    assert wire.region is not None
    asked = question(*sizes, output=output, log_sum_exp=log_sum_exp)
    wire.say(asked, wire.shared_bytes(asked) or 1)
    places = wire.places(asked)
    step = session_pb2.SessionStep.FromString(places.names)
    taken: List[Tuple[int, int]] = []
    for name, (_, tensor) in zip(("q", "k", "v"), asked.tensors):
        place = getattr(step, f"{name}_shared")
        assert place.region == HANDLE
        found = wire.region.array[place.offset : place.offset + tensor.nbytes]
        assert found.tobytes() == tensor.tobytes()
        taken.append((place.offset, tensor.nbytes))
    for name, field, size in (("output", _wire.OUTPUT, output), ("log_sum_exp", _wire.LOG_SUM_EXP, log_sum_exp)):
        assert step.HasField(f"{name}_shared") == (size > 0) == (field in places.results)
        if size > 0:
            place = getattr(step, f"{name}_shared")
            result: Any = places.results[field]
            result[:] = 200
            assert set(wire.region.array[place.offset : place.offset + size].tolist()) == {200}
            taken.append((place.offset, size))
    for (begin, size), (other, _) in zip(taken, taken[1:]):
        assert other % 64 == 0
        assert begin + size <= other
    assert sum(-(-size // 64) * 64 for _, size in taken) <= wire.shared_bytes(asked) or not wire.shared_bytes(asked)


def reply(**fields: Any) -> memoryview:
    return memoryview(local_pb2.LocalReply(**fields).SerializeToString())


def test_where_results_are(wire: SessionWire) -> None:
    """In the answer, unless the step that was sent last named memory for them."""
    said = session_pb2.SessionReply(output=b"abc", log_sum_exp=b"de")
    wire.hear(reply(session=said))
    assert wire.replies.popleft()[1] == {_wire.OUTPUT: b"abc", _wire.LOG_SUM_EXP: b"de"}
    wire.hear(reply(session=session_pb2.SessionReply()))
    assert wire.replies.popleft()[1] == {}
    with_region(wire, 10_000)
    asked = question(100, output=100)
    wire.say(asked, 1)
    wire.hear(reply(session=session_pb2.SessionReply()))
    found: Any = wire.replies.popleft()[1]
    expected: Any = wire.places(asked).results
    assert found.keys() == expected.keys() == {_wire.OUTPUT}
    assert np.shares_memory(found[_wire.OUTPUT], expected[_wire.OUTPUT])
    wire.say(question(4, output=4), 0)
    wire.hear(reply(session=said))
    assert wire.replies.popleft()[1] == {_wire.OUTPUT: b"abc", _wire.LOG_SUM_EXP: b"de"}


def test_ends(wire: SessionWire) -> None:
    end = local_pb2.LocalSessionEnd(code=10, message="idle")
    end.detail.field = "session"
    end.retry_delay.seconds, end.retry_delay.nanos = 2, 500_000_000
    with pytest.raises(Aborted, match="idle") as caught:
        wire.hear(reply(session_end=end))
    assert (caught.value.field, caught.value.retry_delay) == ("session", 2.5)
    with pytest.raises(Internal, match="before it had answered"):
        wire.hear(reply(session_end=local_pb2.LocalSessionEnd()))


def test_one_welcome(wire: SessionWire) -> None:
    wire.hear(reply(welcome=local_pb2.LocalWelcome(version=1)))
    assert wire.welcome is not None
    for other in (
        reply(welcome=local_pb2.LocalWelcome(version=1)),
        reply(answer=local_pb2.LocalAnswer()),
        memoryview(b""),
    ):
        with pytest.raises(Internal, match="none to a session"):
            wire.hear(other)


def test_what_is_dropped(wire: SessionWire) -> None:
    with_region(wire, 1)
    wire.hear(reply(session=session_pb2.SessionReply()))
    assert not wire.quiet
    wire.drop()
    assert wire.region is None
    assert wire.quiet
