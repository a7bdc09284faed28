"""A server of the local socket in this process, which does as a test asks."""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import socket
import struct
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from attnd.v1 import attention_pb2, local_pb2, session_pb2
from waits import join_all, wait_for

__all__ = ["FakeServer", "descriptors", "wait_for"]

MAGIC = 0x6D6873646E747461
Answer = Optional[local_pb2.LocalAnswer]
# Datagrams, as messages or bytes; None ends the connection.
Said = Optional[List[Any]]


class FakeServer:
    """Answers each connection on a thread of its own.

    Attributes:
        on_call: what to do with a call; None: send no answer.
        on_hello: the welcome; None: close the connection, as a server without local calls does.
        on_session: what to say to a message of a session.
        registers: the code that answers a register.
        calls, cancels, sessions: what came. sizes: of the regions that came. ends: connections that clients ended.
        regions: handle to memory, of all connections.
        signs: how often it was asked for a sign of life.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = str(path)
        self.on_call: Callable[[FakeServer, local_pb2.LocalCall], Answer] = lambda server, call: server.result(call)
        self.on_hello: Callable[[], Optional[local_pb2.LocalWelcome]] = lambda: local_pb2.LocalWelcome(
            version=1, max_message_bytes=1 << 16, max_calls=4, sessions=True
        )
        self.on_session: Callable[[FakeServer, local_pb2.LocalRequest], Said] = lambda server, request: server.said(
            request
        )
        self.registers = 0
        self.calls: List[local_pb2.LocalCall] = []
        self.cancels: List[int] = []
        self.sessions: List[local_pb2.LocalRequest] = []
        self.sizes: List[int] = []
        self.ends = 0
        self.regions: Dict[bytes, mmap.mmap] = {}
        self.connections: List[socket.socket] = []
        self.silent = False
        self.signs = 0
        self._threads: List[threading.Thread] = []
        self.start()

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen(256)
        self._spawn(self._accept)

    def stop(self) -> None:
        """Ends as a killed server: all connections close, and the socket's file stays."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)
        join_all(self._threads)
        self._threads.clear()
        self._listener.close()
        for connection in self.connections:
            connection.close()
        self.connections.clear()
        self.regions.clear()

    def restart(self) -> None:
        self.stop()
        os.unlink(self.path)
        self.start()

    def answer(self, call: local_pb2.LocalCall) -> None:
        """Answers a call of the last connection, on any thread."""
        reply = local_pb2.LocalReply(answer=self.result(call))
        self.connections[-1].send(reply.SerializeToString())

    def result(self, call: local_pb2.LocalCall) -> local_pb2.LocalAnswer:
        """An "output" of v's bytes (as many as it takes), and a log-sum-exp of zeros."""
        request = call.request
        size = request.batch * request.heads * request.query_length
        v = self.tensor(
            request, "v", request.batch * request.kv_heads * request.key_length * request.value_head_dim * 4
        )
        output = v[: size * request.value_head_dim * 4]
        answer = local_pb2.LocalAnswer(id=call.id, result=attention_pb2.ComputeAttentionResponse(dtype=1, version=7))
        if request.HasField("output_shared"):
            self.write(request.output_shared, output)
        else:
            answer.result.output = output
        if request.return_log_sum_exp:
            if request.HasField("log_sum_exp_shared"):
                self.write(request.log_sum_exp_shared, bytes(size * 4))
            else:
                answer.result.log_sum_exp = bytes(size * 4)
        return answer

    def tensor(self, request: attention_pb2.ComputeAttentionRequest, name: str, size: int) -> bytes:
        if not request.HasField(f"{name}_shared"):
            sent: bytes = getattr(request, name)
            return sent
        return self.memory(getattr(request, f"{name}_shared"), size)

    def write(self, place: attention_pb2.SharedTensor, data: bytes) -> None:
        self.regions[place.region][place.offset : place.offset + len(data)] = data

    def said(self, request: local_pb2.LocalRequest) -> Said:
        """Opens a session, and answers each step with its q."""
        if request.HasField("session_close"):
            return [local_pb2.LocalReply(session_end=local_pb2.LocalSessionEnd())]
        if request.session.HasField("open"):
            opened = session_pb2.SessionOpened(reserved_bytes=1, page_tokens=64, max_message_bytes=1 << 16)
            return [local_pb2.LocalReply(session=session_pb2.SessionReply(opened=opened))]
        return [self.stepped(request.session)]

    def stepped(self, request: session_pb2.SessionRequest) -> local_pb2.LocalReply:
        """A step's answer: its q, which must have a head_dim of 64, and a log-sum-exp of zeros."""
        step = request.step
        rows = 8 * step.query_length
        result = session_pb2.SessionStepResult(step=step.step, dtype=step.output_dtype, lengths=[7])
        reply = session_pb2.SessionReply(result=result)
        q = self.memory(step.q_shared, rows * 64 * 4) if step.HasField("q_shared") else request.q
        if step.HasField("output_shared"):
            self.write(step.output_shared, q)
        else:
            reply.output = q
        if step.HasField("log_sum_exp_shared"):
            self.write(step.log_sum_exp_shared, bytes(rows * 4))
        elif step.return_log_sum_exp:
            reply.log_sum_exp = bytes(rows * 4)
        return local_pb2.LocalReply(session=reply)

    def memory(self, place: attention_pb2.SharedTensor, size: int) -> bytes:
        return self.regions[place.region][place.offset : place.offset + size]

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self.connections.append(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        mine: List[bytes] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(connection, 1 << 18, 4)
            except OSError:
                data, fds = b"", []
            if not data:
                self.ends += 1
                break
            if self.silent:
                for fd in fds:
                    os.close(fd)
                continue
            fixed = data[:8] == struct.pack("<Q", MAGIC)
            said: Said = [self._fixed(data, fds, mine)] if fixed else self._message(data)
            try:
                for reply in said or ():
                    connection.send(reply if isinstance(reply, bytes) else reply.SerializeToString())
                if said is None:
                    connection.shutdown(socket.SHUT_RDWR)
                    break
            except OSError:
                break
        for handle in mine:
            self.regions.pop(handle, None)

    def _fixed(self, data: bytes, fds: List[int], mine: List[bytes]) -> bytes:
        _, _, operation, size, handle = struct.unpack("<QIIQ16s", data)
        code = 0
        self.signs += operation == 2 and handle == bytes(16)
        if operation == 1:
            handle, code = os.urandom(16), self.registers
            self.sizes.append(size)
            if code == 0:
                self.regions[handle] = mmap.mmap(fds[0], size)
                mine.append(handle)
            os.close(fds[0])
        elif self.regions.pop(handle, None) is None:
            code = 5
        return struct.pack("<QIi16s224s", MAGIC, 1, code, handle, b"refused" if code else b"")

    def _message(self, data: bytes) -> Said:
        request = local_pb2.LocalRequest.FromString(data)
        kind = request.WhichOneof("kind")
        if kind == "hello":
            welcome = self.on_hello()
            return None if welcome is None else [local_pb2.LocalReply(welcome=welcome)]
        if kind in ("session", "session_close"):
            self.sessions.append(request)
            return self.on_session(self, request)
        if kind == "cancel":
            self.cancels.append(request.cancel.id)
            return []
        self.calls.append(request.call)
        answer = self.on_call(self, request.call)
        return [] if answer is None else [local_pb2.LocalReply(answer=answer)]


def descriptors() -> List[Tuple[str, str]]:
    """This process's open descriptors, but for that of the listing itself."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append((name, os.readlink(f"/proc/self/fd/{name}")))
    return sorted(found)


class Losses:
    """Counts how often a door says that its server is lost."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class Times:
    """Instead of the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now
