"""Memory that one session shares with the server."""

from __future__ import annotations

import os
import weakref
from typing import Any, Optional

import numpy as np

from attnd._mapping import Memory, make_memfd, map_memfd, unmap


class SessionRegion:
    """A region of its own. It goes with this object, and at the server with the session's connection, unless it is
    released before.

    Attributes:
        array: its bytes.
        fd: its memfd, until close_fd().
        handle: the server's name for it; None until that is known.
    """

    def __init__(self, size: int) -> None:
        """Raises OSError or OverflowError if there is no memory or no descriptor."""
        self.handle: Optional[bytes] = None
        self.fd = make_memfd(size)
        # The process's end frees everything.
        self.close_fd = weakref.finalize(self, os.close, self.fd)
        self.close_fd.atexit = False
        address = map_memfd(self.fd, size, huge=False)
        memory = Memory(address, size)
        weakref.finalize(memory, unmap, address, size).atexit = False
        self.array: np.ndarray[Any, Any] = np.asarray(memory)

    @property
    def size(self) -> int:
        return int(self.array.nbytes)
