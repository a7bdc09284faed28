"""Memory that can be shared with the server: memfds, mapped into this process.

The C library is called through ctypes, because the module ``mmap`` can neither choose an address (the kernel uses huge
pages only for memory aligned to 2 MiB) nor report that there is no memory for a page (a later write would end the
process with SIGBUS).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from typing import Any, Dict

PAGE = 4096
HUGE_PAGE = 2 << 20

# Linux's numbers, the same on every architecture that attnd runs on.
_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
_PROT_NONE, _PROT_READ_WRITE = 0, 0x3
_MAP_SHARED, _MAP_FIXED, _MAP_RESERVATION = 0x01, 0x10, 0x02 | 0x20 | 0x4000  # private, anonymous, no reserve
_MADV_POPULATE_WRITE, _MADV_COLLAPSE = 23, 25
_MAP_FAILED = ctypes.c_void_p(-1).value
_EINVAL = 22

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def make_memfd(size: int) -> int:
    """Makes a memfd of ``size`` bytes that can neither shrink nor grow, as the server requires.

    Raises:
        OSError: no descriptor or no memory is left, or a limit is exceeded.
    """
    fd = os.memfd_create("attnd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def map_memfd(fd: int, size: int, huge: bool) -> int:
    """Maps a memfd and populates all of its pages. Mappings of 2 MiB or more are aligned to 2 MiB.

    Args:
        huge: move the memory to huge pages, if the system supports it (Linux 6.1).

    Returns:
        The address, for :func:`unmap`.

    Raises:
        OSError: there is no memory or no address space.
    """
    aligned = size >= HUGE_PAGE
    address = _map_aligned(fd, size) if aligned else _map(0, size, _PROT_READ_WRITE, _MAP_SHARED, fd)
    try:
        _populate(fd, address, size)
    except OSError:
        unmap(address, size)
        raise
    if huge and aligned:
        # A failure is ignored: the memory works without huge pages.
        _libc.madvise(address, size // HUGE_PAGE * HUGE_PAGE, _MADV_COLLAPSE)
    return address


def unmap(address: int, size: int) -> None:
    """Undoes :func:`map_memfd`."""
    _libc.munmap(address, size)


def _map(address: int, size: int, protection: int, flags: int, fd: int) -> int:
    result = _libc.mmap(address, size, protection, flags, fd, 0)
    if result is None or result == _MAP_FAILED:
        raise _error()
    return int(result)


def _map_aligned(fd: int, size: int) -> int:
    # First try whether it can be mapped at all: a failed mapping at a fixed address may leave a hole there.
    unmap(_map(0, size, _PROT_READ_WRITE, _MAP_SHARED, fd), size)
    # Reserve more addresses than needed, and unmap those before and after the aligned range.
    reserved = size + HUGE_PAGE
    begin = _map(0, reserved, _PROT_NONE, _MAP_RESERVATION, -1)
    before = -begin % HUGE_PAGE
    try:
        address = _map(begin + before, size, _PROT_READ_WRITE, _MAP_SHARED | _MAP_FIXED, fd)
    except OSError:
        unmap(begin, reserved)
        raise
    end = before + (size + PAGE - 1) // PAGE * PAGE
    if before:
        unmap(begin, before)
    if reserved > end:
        unmap(begin + end, reserved - end)
    return address


def _populate(fd: int, address: int, size: int) -> None:
    if _libc.madvise(address, size, _MADV_POPULATE_WRITE) == 0:
        return
    if ctypes.get_errno() != _EINVAL:
        raise _error()
    os.posix_fallocate(fd, 0, size)  # a kernel older than 5.14


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class Memory:
    """Owns mapped memory: numpy arrays over it refer to this object, and the memory is freed after the last of them."""

    __slots__ = ("__array_interface__", "__weakref__")

    __array_interface__: Dict[str, Any]

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}
