"""The socket beside a Unix socket by hand (docs/shared-memory.md): shared memory, and calls without gRPC."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import socket
import struct

import messages

MAGIC = b"attndshm"
REGISTER = 1
# As in fcntl.h of Linux: not every build of Python names them.
F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2


@dataclasses.dataclass
class Answer:
    code: int
    message: str


class Door:
    """A connection to PATH.shm. `target` is the server's unix:PATH."""

    def __init__(self, target: str, seconds: float = 120):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(seconds)
        self.socket.connect(target.removeprefix("unix:") + ".shm")
        self._next_id = 1

    def close(self) -> None:
        self.socket.close()

    def register(self, size: int) -> tuple[int, bytes, str]:
        """Shares `size` bytes that nobody has touched: code, handle and message."""
        memory = os.memfd_create("attnd", os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, size)
            fcntl.fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK)
            request = MAGIC + struct.pack("<IIQ16s", 1, REGISTER, size, b"")
            socket.send_fds(self.socket, [request], [memory])
        finally:
            os.close(memory)
        reply = self.socket.recv(4096)
        if not reply:
            raise ConnectionError("the server has closed the connection")
        code, handle, text = struct.unpack("<i16s224s", reply[12:256])
        return code, handle, text.split(b"\0")[0].decode(errors="replace")

    def hello(self) -> None:
        self.socket.send(messages.text(1, messages.number(1, 1) + messages.text(2, b"reliability")))
        welcome = messages.fields(self.socket.recv(1 << 16))
        if 1 not in welcome or messages.fields(bytes(welcome[1])).get(1, 0) != 0:
            raise ConnectionError("the server takes no local calls")

    def call(self, request: bytes) -> None:
        """Sends a ComputeAttentionRequest."""
        self.socket.send(messages.text(2, messages.number(1, self._next_id) + messages.text(3, request)))
        self._next_id += 1

    def answer(self) -> Answer:
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server has closed the connection")
        found = messages.fields(bytes(messages.fields(data)[2]))
        return Answer(int(found.get(2, 0)), bytes(found.get(3, b"")).decode(errors="replace"))
