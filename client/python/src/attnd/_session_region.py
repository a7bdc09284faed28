"""The memory that one session shares with the server."""

from __future__ import annotations

import os
import weakref
from typing import Any, Optional

import numpy as np

from attnd._mapping import Memory, make_memfd, map_memfd, unmap


class SessionRegion:
    """A region of one session. It is freed with this object, and at the server when it is released or the session's
    connection ends.

    Attributes:
        array: its bytes.
        fd: its memfd, until close_fd().
        handle: the server's name for it; None until the server has answered.
    """

    def __init__(self, size: int) -> None:
        """Raises OSError or OverflowError if there is no memory or no descriptor."""
        self.handle: Optional[bytes] = None
        self.fd = make_memfd(size)
        # Not needed at exit: the end of the process frees everything.
        self.close_fd = weakref.finalize(self, os.close, self.fd)
        self.close_fd.atexit = False
        address = map_memfd(self.fd, size, huge=False)
        memory = Memory(address, size)
        weakref.finalize(memory, unmap, address, size).atexit = False
        self.array: np.ndarray[Any, Any] = np.asarray(memory)

    @property
    def size(self) -> int:
        return int(self.array.nbytes)
