"""Tensors in memory that the server shares, used again when nobody refers to them any more."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from typing import Any, Deque, List, Optional, Sequence

import numpy as np
import torch

from attnd.errors import FailedPrecondition, ResourceExhausted

STORAGE = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.int16}
# What is kept for the next layers, at least: five blocks serve a thread.
_MAX_IDLE = 32
_MAX_IDLE_BYTES = 256 << 20
_KEPT_OF_LARGE = 6


class SharedTensors:
    """Makes uninitialised tensors that travel to the server and back without a copy. Thread-safe.

    The memory of a tensor goes back to this object with the last tensor, view or array that refers to it, and so is not
    written to while somebody, such as a hook that keeps a layer's output, still holds one.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._idle: List[np.ndarray[Any, Any]] = []  # the one used last is the last
        # Filled by finalizers, which may run on any thread within any call, and take no lock.
        self._returned: Deque[np.ndarray[Any, Any]] = deque()
        self._closed = False

    def make(self, shape: Sequence[int], dtype: Any) -> Optional[Any]:
        """A contiguous torch tensor; None if there is no memory, or no dtype of attnd's."""
        storage = STORAGE.get(dtype)
        count = math.prod(shape)
        if storage is None or count == 0:
            return None
        size = count * np.dtype(storage).itemsize
        block = self._take(size)
        if block is None:
            return None
        array = block[:size].view(storage).reshape(shape)
        # torch keeps this very array for as long as a tensor refers to the memory.
        weakref.finalize(array, self._returned.append, block).atexit = False
        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if dtype is torch.bfloat16 else tensor

    def close(self) -> None:
        """Frees what is idle. Tensors stay."""
        with self._lock:
            self._closed = True
            self._idle.clear()
            self._returned.clear()

    @property
    def idle(self) -> int:
        """Blocks that wait to be used again."""
        with self._lock:
            self._collect()
            return len(self._idle)

    def _take(self, size: int) -> Optional[np.ndarray[Any, Any]]:
        with self._lock:
            if self._closed:
                return None
            self._collect()
            best = -1
            for at in range(len(self._idle) - 1, -1, -1):
                # The smallest that fits and is not twice too large; of equals the one used last.
                offered = self._idle[at].nbytes
                if size <= offered <= 2 * size and (best < 0 or offered < self._idle[best].nbytes):
                    best = at
            if best >= 0:
                return self._idle.pop(best)
        try:
            made: np.ndarray[Any, Any] = self._client.empty(-(-size // 4), np.float32).view(np.uint8)
        except (ResourceExhausted, FailedPrecondition):
            return None
        return made

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            if not self._closed:
                self._idle.append(block)
        total = sum(block.nbytes for block in self._idle)
        most = max(_MAX_IDLE_BYTES, _KEPT_OF_LARGE * self._idle[-1].nbytes) if self._idle else 0
        while len(self._idle) > _MAX_IDLE or total > most:
            total -= self._idle.pop(0).nbytes
