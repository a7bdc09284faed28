"""Decides where the server reads and writes a call's tensors: in the caller's shared memory, in staging memory of the
client, or in the message."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from attnd._regions import Region
from attnd._shm import SharedMemory, aligned
from attnd._wire import varint
from attnd.errors import ResourceExhausted

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

# Tensors that are not in shared memory (q, k, v, output, log-sum-exp) are sent in the message if together they have at
# most this many bytes, and are copied to shared memory otherwise.
MAX_SENT = 16 << 10

_OUTPUT, _LOG_SUM_EXP = 3, 4
# Numbers and tags of q_shared, k_shared, v_shared, output_shared and log_sum_exp_shared.
_FIELDS = (22, 23, 24, 25, 27)
_TAGS = tuple(bytes(((number << 3 | 2) & 0x7F | 0x80, number >> 4)) for number in _FIELDS)
# The most fields that are cached for a region, in case its arrays are at ever new offsets.
_MAX_FIELDS = 1024
# Of SharedTensor: the handle's tag and length, and the offset's tag.
_HANDLE_HEAD, _OFFSET_HEAD = b"\x0a\x10", b"\x10"


class Block(NamedTuple):
    """A region of the pool."""

    array: Array  # its bytes
    region: Region


class StagingPool:
    """Keeps regions for reuse, because a new one costs its pages and a message to the server. Thread-safe.

    Keeps the most recently used, at most MAX_IDLE_BYTES and MAX_IDLE regions. Those idle for longer than MAX_IDLE_TIME
    are freed at the next get() or put().
    """

    MAX_IDLE_BYTES = 256 << 20
    MAX_IDLE = 64
    MAX_IDLE_TIME = 10.0

    def __init__(self, memory: SharedMemory, now: Callable[[], float] = time.monotonic) -> None:
        self._memory = memory
        self._now = now
        self._lock = threading.Lock()
        self._idle: Deque[Tuple[Block, float]] = deque()  # the most recently used is last
        self._idle_bytes = 0
        self._closed = False

    def get(self, size: int) -> Optional[Block]:
        """Takes a region of at least ``size`` bytes; None if there is no memory."""
        with self._lock:
            surplus = self._take_surplus()
            best = -1
            for at in range(len(self._idle) - 1, -1, -1):
                offered = self._idle[at][0].region.size
                # The smallest that fits and is at most twice the size; among equals the most recently used.
                if size <= offered <= 2 * size and (best < 0 or offered < self._idle[best][0].region.size):
                    best = at
            found = self._idle[best][0] if best >= 0 else None
            if found is not None:
                del self._idle[best]
                self._idle_bytes -= found.region.size
        del surplus  # unmapped outside of the lock
        if found is not None:
            return found
        try:
            return Block(*self._memory.allocate(size))
        except ResourceExhausted:
            return None

    def put(self, block: Block) -> None:
        """Gives back a block that neither side uses any more: after a call that succeeded, or if the server was never
        told to use it. Not after a failed call, since the server may still use it."""
        if block.region.size > self.MAX_IDLE_BYTES:
            return
        with self._lock:
            if self._closed:
                return
            self._idle.append((block, self._now()))
            self._idle_bytes += block.region.size
            surplus = self._take_surplus()
        del surplus

    def close(self) -> None:
        """Frees the idle regions, and from now on every region that is given back."""
        with self._lock:
            self._closed = True
            surplus = list(self._idle)
            self._idle.clear()
            self._idle_bytes = 0
        del surplus

    @property
    def idle_bytes(self) -> int:
        return self._idle_bytes

    def _take_surplus(self) -> List[Block]:
        surplus = []
        oldest = self._now() - self.MAX_IDLE_TIME
        while self._idle and (
            self._idle_bytes > self.MAX_IDLE_BYTES or len(self._idle) > self.MAX_IDLE or self._idle[0][1] < oldest
        ):
            block, _ = self._idle.popleft()
            self._idle_bytes -= block.region.size
            surplus.append(block)
        return surplus


class Staged:
    """Where the tensors of one call are.

    Attributes:
        names: the serialised fields of ComputeAttentionRequest that name shared memory.
        sent: the field number and the array of each tensor in the message.
        sent_bytes: total size of these tensors.
        answered_bytes: size of the output and the log-sum-exp in the answer.
    """

    __slots__ = (
        "_block",
        "answered_bytes",
        "generation",
        "log_sum_exp",
        "names",
        "output",
        "sent",
        "sent_bytes",
        "unknown",
    )

    def __init__(self) -> None:
        self.names: bytes = b""
        self.sent: List[Tuple[int, Array]] = []
        self.sent_bytes = 0
        self.answered_bytes = 0
        # Shared memory that the server writes to; None: the result comes in the answer.
        self.output: Optional[Array] = None
        self.log_sum_exp: Optional[Array] = None
        self._block: Optional[Block] = None
        # The generation of the handles in `names`, or an earlier one.
        self.generation = 0
        # How often the server did not know the named memory.
        self.unknown = 0


class Stager:
    """Finds or makes the place of each tensor. Thread-safe.

    Args:
        enabled: False: everything is sent in messages.

    Attributes:
        enabled: the argument.
        copied_in: bytes copied to shared memory so far. Like copied_out it is for tests and measurements: it may miss
            concurrent calls.
        copied_out: bytes copied from shared memory so far.
    """

    def __init__(self, memory: SharedMemory, enabled: bool = True) -> None:
        self.memory = memory
        self.enabled = enabled
        self.pool = StagingPool(memory)
        self.copied_in = 0
        self.copied_out = 0

    def name(self, which: int, array: Array, at: float) -> Optional[bytes]:
        """The field that names an array's memory; None if it is not shared memory or not contiguous. ``which``: an
        index into _FIELDS (0 is q, 1 is k)."""
        if not self.enabled or not array.flags.c_contiguous:
            return None
        place = self.memory.place(array.__array_interface__["data"][0], array.nbytes)
        if place is None:
            return None
        return self._name(which, place[0], place[1], at)

    def _name(self, which: int, region: Region, offset: int, at: float) -> Optional[bytes]:
        fields = region.fields  # read before the handle, so that they do not belong to a later handle
        handle = region.handle
        if handle is None:
            if not self.memory.keeper.register(region, at - time.monotonic()):
                return None
            fields, handle = region.fields, region.handle
            if handle is None:
                return None
        key = offset << 3 | which
        found = fields.get(key)
        if found is None:
            tail = _OFFSET_HEAD + varint(offset)
            found = _TAGS[which] + bytes((18 + len(tail),)) + _HANDLE_HEAD + handle + tail
            if len(fields) < _MAX_FIELDS:
                fields[key] = found
        return found

    def stage(
        self,
        inputs: Sequence[Array],
        out: Optional[Array],
        out_overlaps: bool,
        output_bytes: int,
        log_sum_exp_bytes: int,
        may_send: bool = True,
        at: float = math.inf,
    ) -> Optional[Staged]:
        """Decides where each tensor goes, and copies tensors to shared memory where necessary.

        Args:
            inputs: q, k, v, with the message's axes and any strides.
            out: the caller's memory for the output; None: new memory.
            out_overlaps: whether `out` may overlap the inputs.
            output_bytes: size of the output.
            log_sum_exp_bytes: size of the log-sum-exp; 0 if it is not wanted.
            may_send: whether small tensors may be sent in the message even if no tensor is shared.
            at: the call's deadline, by the monotonic clock.

        Returns:
            None if the call cannot use shared memory: there is no memory, the server does not share it, or (without
            `may_send`) no tensor is in it and all are small.
        """
        staged = Staged()
        staged.generation = self.memory.keeper.generation
        names: List[bytes] = []
        missing: List[int] = []
        to_place = 0
        for which, array in enumerate(inputs):
            name = self.name(which, array, at)
            if name is None:
                missing.append(which)
                to_place += array.nbytes
            else:
                names.append(name)
        # The server refuses an output that overlaps q, k or v, so it is written elsewhere first.
        name = self.name(_OUTPUT, out, at) if out is not None and not out_overlaps else None
        if name is None:
            missing.append(_OUTPUT)
            to_place += output_bytes
        else:
            names.append(name)
            staged.output = out
        if log_sum_exp_bytes:
            missing.append(_LOG_SUM_EXP)
            to_place += log_sum_exp_bytes
        if to_place <= MAX_SENT:
            if not names and not may_send:
                return None
            self._send(staged, missing, inputs, output_bytes, log_sum_exp_bytes)
        elif not self._copy(staged, names, missing, inputs, output_bytes, log_sum_exp_bytes, at):
            return None
        staged.names = b"".join(names)
        return staged

    def waits_for_nothing(self, inputs: Sequence[Array], out: Optional[Array], max_copy: int) -> bool:
        """Whether stage() would neither wait for the server nor copy more than ``max_copy`` bytes."""
        if not self.enabled:
            return True
        to_copy = 0
        for array in inputs if out is None else (*inputs, out):
            place = self.memory.place(array.__array_interface__["data"][0], array.nbytes)
            if place is None or not array.flags.c_contiguous:
                to_copy += array.nbytes
            elif place[0].handle is None and self.memory.keeper.worth_trying():
                return False
        return to_copy <= max_copy

    def finish(self, staged: Staged) -> None:
        """Makes the memory reusable after a successful call, once its results have been read."""
        block, staged._block = staged._block, None
        if block is not None:
            self.pool.put(block)

    def _send(
        self, staged: Staged, missing: List[int], inputs: Sequence[Array], output_bytes: int, log_sum_exp_bytes: int
    ) -> None:
        for which in missing:
            if which == _OUTPUT:
                staged.answered_bytes += output_bytes
            elif which == _LOG_SUM_EXP:
                staged.answered_bytes += log_sum_exp_bytes
            else:
                staged.sent.append((100 + which, inputs[which]))
                staged.sent_bytes += inputs[which].nbytes

    def _copy(
        self,
        staged: Staged,
        names: List[bytes],
        missing: List[int],
        inputs: Sequence[Array],
        output_bytes: int,
        log_sum_exp_bytes: int,
        at: float,
    ) -> bool:
        if not self.enabled:
            self._send(staged, missing, inputs, output_bytes, log_sum_exp_bytes)
            return True
        sizes = [*(array.nbytes for array in inputs), output_bytes, log_sum_exp_bytes]
        block = self.pool.get(sum(aligned(sizes[which]) for which in missing))
        if block is None:
            return False
        offset = 0
        for which in missing:
            name = self._name(which, block.region, offset, at)
            if name is None:
                self.pool.put(block)  # the server has not used it
                return False
            names.append(name)
            place = block.array[offset : offset + sizes[which]]
            if which == _OUTPUT:
                staged.output = place
            elif which == _LOG_SUM_EXP:
                staged.log_sum_exp = place
            else:
                array = inputs[which]
                np.copyto(place.view(array.dtype).reshape(array.shape), array)
                self.copied_in += array.nbytes
            offset += aligned(sizes[which])
        staged._block = block
        return True
