"""Lists and evicts a server's open sessions, for operators. Operations for both clients."""

from __future__ import annotations

from functools import partial
from typing import Any, List, Optional

from attnd import _convert
from attnd._arguments import integer
from attnd._core import Core, ask_server
from attnd._operation import Operation
from attnd.models import SessionInfo
from attnd.v1 import session_pb2

_SESSIONS = "/attnd.v1.SessionService/"


def list_sessions(core: Core, *, timeout: Optional[float] = None, metadata: Any = None) -> Operation[List[SessionInfo]]:
    """Returns the open sessions of all clients of the server, in the order in which they were opened.

    Raises:
        ResourceExhausted: no memory for the list.
        Unavailable: the server was not reached, or is stopping.
        DeadlineExceeded: not done within the timeout.

    Example:
        >>> with client.session([attnd.SelfLayer(heads=8, head_dim=64)], "t5-tiny", rows=2, max_tokens=100):
        ...     [(info.model, info.rows, info.steps) for info in client.list_sessions()]
        [('t5-tiny', 2, 0)]
    """
    deadline, pairs = core.begin(timeout, metadata)
    request, response = session_pb2.ListSessionsRequest(), session_pb2.ListSessionsResponse
    ask = partial(ask_server, core, _SESSIONS + "ListSessions", request, response, deadline, pairs)
    answer = yield from core.repeated(core.io, deadline, ask)
    return [_convert.session_info_of(session) for session in answer.sessions]


def evict_session(core: Core, id: int, *, timeout: Optional[float] = None, metadata: Any = None) -> Operation[None]:
    """Evicts a session of any client: its next step raises Aborted. The call is sent once and never repeated.

    Args:
        id: the session's, from :meth:`list_sessions`.
        timeout: seconds; None is the client's.
        metadata: gRPC metadata to send.

    Raises:
        NotFound: no such session is open.

    Example:
        >>> session = client.session([attnd.SelfLayer(heads=8, head_dim=64)], "t5-tiny", max_tokens=100)
        >>> for info in client.list_sessions():
        ...     client.evict_session(info.id)
        >>> try:
        ...     session.lengths(0)
        ... except attnd.Aborted as error:
        ...     print(error.field)
        session
    """
    request = session_pb2.EvictSessionRequest(id=integer("id", id, 0, 2**64 - 1))
    deadline, pairs = core.begin(timeout, metadata)
    response = session_pb2.EvictSessionResponse
    ask = partial(ask_server, core, _SESSIONS + "EvictSession", request, response, deadline, pairs)
    yield from core.once(core.io, deadline, ask)
