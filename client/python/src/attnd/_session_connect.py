"""Begins the stream of a session, over the first transport that accepts it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Optional, Tuple

from attnd._answer import not_an_answer
from attnd._core import Core
from attnd._deadline import Deadline
from attnd._duplex import Duplex, Question, Tensors
from attnd._operation import Metadata, Operation
from attnd.errors import Error
from attnd.v1 import session_pb2

if TYPE_CHECKING:
    from attnd._session import State

METHOD = "/attnd.v1.SessionService/Attend"


def connect(
    state: State, opening: session_pb2.SessionOpen, question: Question, deadline: Deadline, metadata: Metadata
) -> Operation[Tuple[Duplex, session_pb2.SessionOpened]]:
    """Begins a stream and asks its first question, which opens or resumes the session that `opening` describes."""
    stream = yield from _stream(state.core, opening, deadline, metadata)

    def accept(reply: session_pb2.SessionReply, _: Tensors) -> Optional[session_pb2.SessionOpened]:
        if not state.answers(reply):
            return None
        if not reply.HasField("opened"):
            raise not_an_answer("it is none to the opening of a session")
        return reply.opened

    try:
        seconds = deadline.left()
        opened: session_pb2.SessionOpened = yield lambda: stream.ask(
            lambda: question, accept, math.inf if seconds is None else seconds
        )
    except Error:
        yield stream.close
        raise
    stream.max_message_bytes = opened.max_message_bytes or math.inf
    stream.resumable = bool(opened.resume_token)
    return stream, opened


def _stream(core: Core, opening: session_pb2.SessionOpen, deadline: Deadline, metadata: Metadata) -> Operation[Duplex]:
    for transport in core.transports:
        stream = yield from transport.duplex(opening, deadline, metadata)
        if stream is not None:
            return stream
    found: Duplex = yield lambda: core.io.duplex(METHOD, metadata)
    return found
