"""The memory that one client shares with the server at one Unix socket."""

from __future__ import annotations

import bisect
import os
import threading
import weakref
from collections import deque
from typing import Any, Deque, List, Optional, Tuple

import numpy as np

from attnd._mapping import HUGE_PAGE, Memory, make_memfd, map_memfd, unmap
from attnd._regions import Region, RegionKeeper
from attnd.errors import ResourceExhausted

# Arrays up to this size are cut from a common region, because a region takes a descriptor here and one of the 256 that
# the server allows a connection.
_MAX_PIECE = 256 << 10
_PIECES_REGION = HUGE_PAGE
_ALIGNMENT = 64


class SharedMemory:
    """Allocates shared memory, and finds the region of an address. Thread-safe.

    Memory is freed, here and at the server, with the last array that refers to it, even after :meth:`close`.
    """

    def __init__(self, keeper: RegionKeeper) -> None:
        self.keeper = keeper
        self._lock = threading.Lock()
        # Sorted by address. Replaced as a whole, so that place() needs no lock.
        self._index: Tuple[List[int], List[Region]] = ([], [])
        self._freed: Deque[Region] = deque()
        self._pieces: Optional[Memory] = None
        self._pieces_used = 0
        self._closed = False

    def allocate(self, size: int, huge: bool = False) -> Tuple[np.ndarray[Any, Any], Region]:
        """Allocates a separate region of ``size`` bytes (> 0) of zeros.

        Raises:
            ResourceExhausted: no memory, descriptor or address space is left.
        """
        memory, region = self._allocate(size, huge)
        return np.asarray(memory), region

    def empty(self, size: int) -> np.ndarray[Any, Any]:
        """Allocates ``size`` bytes of zeros, aligned to 64 bytes, on huge pages if they fill one; small arrays share a
        region.

        Raises:
            ResourceExhausted: no memory, descriptor or address space is left.
        """
        if size > _MAX_PIECE:
            return self.allocate(size, huge=True)[0]
        with self._lock:
            memory, begin = self._pieces, self._pieces_used
            fits = memory is not None and begin + size <= _PIECES_REGION
            if fits:
                self._pieces_used = begin + aligned(size)
        self._collect()
        if fits:
            return np.asarray(memory)[begin : begin + size]
        memory, _ = self._allocate(_PIECES_REGION, huge=True)
        with self._lock:
            self._pieces, self._pieces_used = memory, aligned(size)
        if self._closed:
            self._pieces = None
        self._collect()
        return np.asarray(memory)[:size]

    def place(self, address: int, size: int) -> Optional[Tuple[Region, int]]:
        """The region that contains all of ``size`` bytes at ``address``, and their offset; None if there is none."""
        addresses, regions = self._index
        at = bisect.bisect_right(addresses, address) - 1
        if at < 0:
            return None
        region = regions[at]
        offset = address - region.address
        return (region, offset) if offset + size <= region.size else None

    @property
    def count(self) -> int:
        """Number of regions."""
        return len(self._index[0])

    def close(self) -> None:
        """Ends the sharing for good. Arrays stay valid. Does not wait."""
        self._closed = True
        self._pieces = None
        self._collect()
        self.keeper.close()

    def _allocate(self, size: int, huge: bool) -> Tuple[Memory, Region]:
        self._collect()
        try:
            fd = make_memfd(size)
            try:
                address = map_memfd(fd, size, huge)
            except BaseException:
                os.close(fd)
                raise
        except (OSError, OverflowError) as error:
            raise ResourceExhausted(f"cannot make {size} bytes of memory to share: {error}") from None
        region = Region(address, size, fd)
        memory = Memory(address, size)
        with self._lock:
            addresses, regions = self._index
            at = bisect.bisect(addresses, address)
            self._index = ([*addresses[:at], address, *addresses[at:]], [*regions[:at], region, *regions[at:]])
        # Not at exit: arrays may still be in use then, and the end of the process frees everything.
        weakref.finalize(memory, self._free, region).atexit = False
        self._collect()
        return memory, region

    def _free(self, region: Region) -> None:
        # A finalizer: it may run on any thread at any time, even on one that holds the lock.
        self._freed.append(region)
        self._collect()

    def _collect(self) -> None:
        # Every holder of the lock calls this after releasing it.
        while self._freed and self._lock.acquire(blocking=False):
            freed: List[Region] = []
            try:
                while self._freed:
                    freed.append(self._freed.popleft())
                gone = set(freed)
                left = [region for region in self._index[1] if region not in gone]
                self._index = ([region.address for region in left], left)
            finally:
                self._lock.release()
            for region in freed:
                self.keeper.release(region)
                unmap(region.address, region.size)
                os.close(region.fd)


def aligned(size: int) -> int:
    """The size, rounded up to a multiple of the alignment."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
