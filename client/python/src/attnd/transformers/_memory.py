"""Tensors in memory shared with the server, which is reused once no tensor refers to it."""

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
# The most idle blocks and bytes that are kept for the next layers. Of large blocks, _KEPT_OF_LARGE are kept even if
# they have more bytes: one thread needs five.
_MAX_IDLE = 32
_MAX_IDLE_BYTES = 256 << 20
_KEPT_OF_LARGE = 6


class SharedTensors:
    """Makes uninitialised tensors that travel to the server and back without a copy. Thread-safe.

    A tensor's memory is reused only after the last tensor, view or array that refers to it is gone. So a layer's output
    that a hook keeps, for example, is not overwritten.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._idle: List[np.ndarray[Any, Any]] = []  # the most recently used is last
        # Filled by finalizers, which may run on any thread within any call, and so must not take a lock.
        self._returned: Deque[np.ndarray[Any, Any]] = deque()
        self._closed = False

    def make(self, shape: Sequence[int], dtype: Any) -> Optional[Any]:
        """Makes a contiguous torch tensor; None if it is empty, its dtype is not supported, or there is no memory."""
        storage = STORAGE.get(dtype)
        count = math.prod(shape)
        if storage is None or count == 0:
            return None
        size = count * np.dtype(storage).itemsize
        block = self._take(size)
        if block is None:
            return None
        array = block[:size].view(storage).reshape(shape)
        # torch keeps a reference to this array as long as a tensor refers to the memory.
        weakref.finalize(array, self._returned.append, block).atexit = False
        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if dtype is torch.bfloat16 else tensor

    def close(self) -> None:
        """Frees the idle blocks. Tensors stay valid."""
        with self._lock:
            self._closed = True
            self._idle.clear()
            self._returned.clear()

    @property
    def idle(self) -> int:
        """Number of blocks that wait to be reused."""
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
                # The smallest that fits and is at most twice the size; among equals the most recently used.
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
