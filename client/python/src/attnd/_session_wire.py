"""The messages of a session on the local socket (attnd/v1/local.proto), without I/O."""

from __future__ import annotations

import array
import socket
from collections import deque
from typing import Any, Deque, List, NamedTuple, Optional, Tuple

import numpy as np

from attnd import _local_wire, _wire
from attnd._duplex import ENDED, Question, Tensors
from attnd._regions import is_sign, parse_answer, register_request, release_request
from attnd._session_region import SessionRegion
from attnd._shm import aligned
from attnd._staging import MAX_SENT
from attnd._status import error_in_end
from attnd._wire import varint
from attnd.errors import Error, Internal
from attnd.v1 import local_pb2, session_pb2

# An upper bound for the bytes of a datagram that are neither tensors nor fields of the opening or the step.
BESIDE = 1024
# The same for an answer, which also has five bytes for the length of each of at most 1024 rows or sources.
_ANSWER_BESIDE = BESIDE + 5 * 1024
# Sizes of regions are multiples of this.
_GRAIN = 64 << 10
# A larger region than this is released when a step needs an eighth of it at most.
_KEPT = 16 << 20

# SessionStep.q_shared to log_sum_exp_shared: tags. Of SharedTensor: the handle's tag and length, and the offset's tag.
_SHARED = {
    _wire.Q: b"\xa2\x01",
    _wire.K: b"\xaa\x01",
    _wire.V: b"\xb2\x01",
}
_OUTPUT_SHARED, _LOG_SUM_EXP_SHARED = b"\xba\x01", b"\xc2\x01"
_HANDLE_HEAD, _OFFSET_HEAD = b"\x0a\x10", b"\x10"


class Datagram(NamedTuple):
    """A datagram to send: its parts, and the socket's control messages."""

    parts: List[Any]
    control: Any = ()


class Places(NamedTuple):
    """Attributes:
    region: the session's.
    names: serialised fields of a step that name the memory of its tensors.
    inputs: the memory of each input, as an array of its shape.
    results: the memory of the results, by field number.
    """

    region: SessionRegion
    names: bytes
    inputs: List[np.ndarray[Any, Any]]
    results: Tensors


class SessionWire:
    """The state of one connection. Not thread-safe.

    Attributes:
        welcome: what the server offers; None until it has answered.
        most_bytes: the largest datagram.
        replies: the session's replies that have arrived and are not taken yet.
        region: the session's; None if there is none.
    """

    def __init__(self) -> None:
        self.welcome: Optional[local_pb2.LocalWelcome] = None
        self.most_bytes = 1 << 16
        self.replies: Deque[Tuple[session_pb2.SessionReply, Tensors]] = deque()
        self.region: Optional[SessionRegion] = None
        # The fixed messages that are not answered yet, in order: True for the registration of the region. The contents
        # of the other answers do not matter.
        self._unanswered: Deque[bool] = deque()
        self._results: Optional[Tensors] = None  # where the server writes the results of the step under way

    def shared_bytes(self, question: Question) -> int:
        """Bytes of shared memory that the question and its answer need; 0 if they travel in datagrams. Raises
        ResourceExhausted for a question that is too large for the server."""
        room = self.most_bytes - len(question.body) - BESIDE
        if room < 0:
            raise question.too_large(f"at most {self.most_bytes - BESIDE} bytes beside q, k and v", len(question.body))
        results = question.output_bytes + question.log_sum_exp_bytes
        inputs = sum(tensor.nbytes for _, tensor in question.tensors)
        if inputs + results <= MAX_SENT and inputs <= room and results <= self.most_bytes - _ANSWER_BESIDE:
            return 0
        sizes = [tensor.nbytes for _, tensor in question.tensors]
        return sum(map(aligned, (*sizes, question.output_bytes, question.log_sum_exp_bytes)))

    def has_room(self, size: int) -> bool:
        """Whether the region suits a step that needs `size` bytes of it: neither too small nor much too large."""
        region = self.region
        if region is None:
            return size == 0
        return size <= region.size and (region.size <= _KEPT or 8 * size > region.size)

    def replace_region(self, size: int) -> List[Datagram]:
        """Releases the region, and makes another one if `size` is not 0. Returns the datagrams that tell the server.

        Raises:
            OSError, OverflowError: there is no memory.
        """
        # A quarter more than needed, because steps often grow one after another.
        region = SessionRegion(-(-size * 5 // 4 // _GRAIN) * _GRAIN) if size > 0 else None
        old, self.region = self.region, region
        datagrams: List[Datagram] = []
        if old is not None and old.handle is not None:
            datagrams.append(Datagram([release_request(old.handle)]))
            self._unanswered.append(False)
        if region is not None:
            descriptor = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [region.fd]))
            datagrams.append(Datagram([register_request(region.size)], [descriptor]))
            self._unanswered.append(True)
        return datagrams

    @property
    def registering(self) -> bool:
        """Whether the server has not yet answered the registration of the region."""
        return True in self._unanswered

    def sign_requested(self) -> None:
        """Records that a ping (SIGN_REQUEST) was sent."""
        self._unanswered.append(False)

    def say(self, question: Question, shared_bytes: int) -> Datagram:
        """The datagram of a question, for which there must be room."""
        if shared_bytes == 0:
            self.expect(None)
            return Datagram(_local_wire.session(question.field, question.body, b"", question.tensors))
        places = self.places(question)
        for place, (_, tensor) in zip(places.inputs, question.tensors):
            np.copyto(place, tensor)
        self.expect(places.results)
        return Datagram(_local_wire.session(question.field, question.body, places.names))

    def places(self, question: Question) -> Places:
        """Lays out the tensors of a question in the region, which must have room."""
        region = self.region
        assert region is not None
        assert region.handle is not None
        names: List[bytes] = []
        inputs: List[np.ndarray[Any, Any]] = []
        offset = 0
        for number, tensor in question.tensors:
            names.append(_name(_SHARED[number], region.handle, offset))
            inputs.append(region.array[offset : offset + tensor.nbytes].view(tensor.dtype).reshape(tensor.shape))
            offset += aligned(tensor.nbytes)
        results: Tensors = {}
        for tag, field, size in (
            (_OUTPUT_SHARED, _wire.OUTPUT, question.output_bytes),
            (_LOG_SUM_EXP_SHARED, _wire.LOG_SUM_EXP, question.log_sum_exp_bytes),
        ):
            if size > 0:
                names.append(_name(tag, region.handle, offset))
                results[field] = region.array[offset : offset + size]
                offset += aligned(size)
        return Places(region, b"".join(names), inputs, results)

    def expect(self, results: Optional[Tensors]) -> None:
        """Sets where the server writes the results of the step that is sent next; None: in its answer."""
        self._results = results

    @property
    def quiet(self) -> bool:
        """Whether everything sent has been answered, and all answers have been taken."""
        return not self.replies and not self._unanswered

    def hear(self, data: memoryview) -> None:
        """Takes a datagram. Raises the error with which the server ends the session, or Internal for an unexpected
        datagram."""
        if is_sign(data):
            self._hear_fixed(data)
            return
        reply = _local_wire.reply(bytes(data))
        kind = reply.WhichOneof("kind")
        if kind == "session":
            self.replies.append((reply.session, self._tensors(reply.session)))
        elif kind == "session_end":
            raise _error_in_end(reply.session_end)
        elif kind == "welcome" and self.welcome is None:
            self.welcome = reply.welcome
        else:
            raise Internal(f"the server's reply is none to a session: {kind or 'nothing that is known'}")

    def drop(self) -> None:
        """Frees everything after the connection's end."""
        self.region = self._results = None
        self.replies.clear()

    def _hear_fixed(self, data: memoryview) -> None:
        if not self._unanswered:
            raise Internal("the server answered a message that was not sent")
        if self._unanswered.popleft() and self.region is not None:
            code, handle = parse_answer(data)
            if code == 0:
                self.region.handle = handle
                self.region.close_fd()  # the server has its own copy, and the mapping needs none
            else:
                self.region = None

    def _tensors(self, reply: session_pb2.SessionReply) -> Tensors:
        if self._results is not None:
            return self._results
        found: Tensors = {}
        if reply.output:
            found[_wire.OUTPUT] = reply.output
        if reply.log_sum_exp:
            found[_wire.LOG_SUM_EXP] = reply.log_sum_exp
        return found


def _name(tag: bytes, handle: bytes, offset: int) -> bytes:
    tail = _OFFSET_HEAD + varint(offset)
    return tag + bytes((18 + len(tail),)) + _HANDLE_HEAD + handle + tail


def _error_in_end(end: local_pb2.LocalSessionEnd) -> Error:
    return Internal(ENDED) if end.code == 0 else error_in_end(end)
