"""Opens sessions: keys and values that the server keeps between calls (attnd/v1/session.proto). `_step.py` has the
steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Dict, Optional, Sequence, Tuple, Union

from attnd import _dtypes, _masks
from attnd._arguments import integer, model_name, text
from attnd._core import Core
from attnd._deadline import checked_seconds
from attnd._duplex import OPEN, Duplex, Question
from attnd._operation import Operation
from attnd._options import checked_metadata
from attnd._request import scale_number
from attnd._session_connect import connect
from attnd._session_log import SessionLog
from attnd._session_recovery import Recovery
from attnd.errors import InvalidArgument
from attnd.v1 import session_pb2

_TABLE = 'the name of a table: "decoder", "decoder.N"'
_SELF, _CROSS = 1, 2  # attnd.v1.SessionLayerKind

# The default grace time of a session with a log, and the largest that is requested; the server may allow less.
_GRACE_SECONDS = 30.0
_LONGEST_GRACE = 86400.0


@dataclass(frozen=True)
class SelfLayer:
    """A self-attention layer, whose keys and values belong to the session's rows: causal, with a bias table's bias.

    Attributes:
        heads: number of query heads.
        head_dim: elements in a row of q and k.
        table: bias table of the session's model: "decoder" (also if None), or "decoder.N" for layer N.
        bias: False adds no bias.
        kv_heads: number of key/value heads; divides heads. None is heads.
        value_head_dim: elements in a row of v and of the output; None is head_dim.
        scale: factor of q.k; None is 1, as in T5.
    """

    heads: int
    head_dim: int
    table: Optional[str] = None
    bias: bool = True
    kv_heads: Optional[int] = None
    value_head_dim: Optional[int] = None
    scale: Optional[float] = None


@dataclass(frozen=True)
class CrossLayer:
    """A cross-attention layer, whose keys and values belong to the session's sources, which rows share: every key is
    visible, and no bias is added. The attributes are those of :class:`SelfLayer`."""

    heads: int
    head_dim: int
    kv_heads: Optional[int] = None
    value_head_dim: Optional[int] = None
    scale: Optional[float] = None


Layer = Union[SelfLayer, CrossLayer]


class State:
    """An open session. As thread-safe as its stream."""

    def __init__(self, core: Core, layers: Sequence[Layer], rows: int, sources: int) -> None:
        self.core = core
        self.layers = tuple(layers)
        self.rows = rows
        self.sources = sources
        self.opened = session_pb2.SessionOpened()
        self.going_away: Optional[float] = None
        self.next_step = 1
        self.forms: Dict[Any, Any] = {}  # cached forms of steps, by their settings: _step_message.py
        self.stream: Duplex = Duplex()
        self.recovery: Optional[Recovery] = None  # None: a lost session is not restored

    @property
    def log(self) -> Optional[SessionLog]:
        """The client's copy of what steps have changed; None without one."""
        return None if self.recovery is None else self.recovery.log

    def adopt(self, stream: Duplex, opened: session_pb2.SessionOpened, next_step: int) -> None:
        """Continues the session on this stream."""
        self.stream, self.opened, self.next_step = stream, opened, next_step
        self.going_away = None
        if self.recovery is not None:
            self.recovery.token = opened.resume_token

    def answers(self, reply: session_pb2.SessionReply) -> bool:
        """Returns whether the message is an answer; otherwise records what it says (going_away)."""
        if reply.HasField("going_away"):
            left = reply.going_away.time_left
            self.going_away = left.seconds + left.nanos / 1e9
            return False
        return True


def open_session(
    core: Core,
    layers: Sequence[Layer],
    model: Optional[str] = None,
    *,
    rows: int = 1,
    sources: int = 0,
    max_tokens: int = 0,
    max_source_tokens: int = 0,
    dtype: Any = "float32",
    version: int = 0,
    row_sources: Optional[Sequence[int]] = None,
    replay_bytes: int = 0,
    replay_evicted: bool = False,
    grace: Optional[float] = None,
    timeout: Optional[float] = None,
    metadata: Any = None,
) -> Operation[State]:
    """Opens a session: the server keeps keys and values, so that each step sends only those of the new tokens.

    Args:
        layers: a :class:`SelfLayer` or :class:`CrossLayer` for each attention layer of the model, in any order.
        model: name of a loaded model, whose bias the self layers use; None if no layer has a bias.
        rows: number of sequences (batch times beams).
        sources: number of sources that cross layers attend to, 1 to rows; 0 without cross layers.
        max_tokens: the most tokens that a row may have.
        max_source_tokens: the most tokens that a source may have.
        dtype: in which keys and values are kept: float32, float16 or bfloat16.
        version: of the model; 0 is the current one. The session keeps the version that it began with.
        row_sources: the source of each row, [rows]. None: the first rows / sources rows belong to source 0, the next
            to source 1, and so on.
        replay_bytes: keep a copy of the keys and values in the client, of at most this many bytes, and send it again
            if the connection or the server is lost (replay). 0: no copy. If the session outgrows this, the copy is
            dropped and the session continues without it.
        replay_evicted: also replay a session that the server evicted, because it was idle for too long or too old, or
            because an operator evicted it. Needs ``replay_bytes``. Without it, an evicted session is over.
        grace: seconds for which the server keeps the session after its connection is lost, so that it can be resumed.
            The server allows about 30 s at most. None: 30 s with ``replay_bytes``, 0 without.
        timeout: seconds for the opening; None is the client's, ``float("inf")`` is none.
        metadata: gRPC metadata to send.

    Raises:
        InvalidArgument: an argument is out of range; ``error.field`` names it.
        NotFound: no such model, version or table.
        ResourceExhausted: no memory for all that the session may keep, or too many sessions.
        Unavailable: the server was not reached, or is stopping.

    Close the session, or use it in a ``with`` statement, because it holds memory of the server. Without
    ``replay_bytes`` or ``grace`` it is lost with its connection. With either, the next step restores it, within the
    step's timeout and as the client's :class:`Retry` describes, and keeps trying while the server has no memory for it;
    a session that is not closed then stays in the server's memory for its grace time.

    Example:
        >>> layers = [attnd.SelfLayer(heads=8, head_dim=64)]
        >>> with client.session(layers, "t5-tiny", rows=2, max_tokens=100) as session:
        ...     for _ in range(3):
        ...         q, k, v = (np.ones((2, 8, 1, 64), np.float32) for _ in range(3))
        ...         output = session.attend(0, q, k, v)
        ...     output.shape, session.lengths(0)
        ((2, 8, 1, 64), (3, 3))
    """
    deadline, pairs = core.begin(timeout, metadata)
    message, state = _opening(
        core, layers, model, rows, sources, max_tokens, max_source_tokens, dtype, version, row_sources
    )
    state.recovery = _recovery(core, message, replay_bytes, replay_evicted, grace, metadata)
    question = Question(OPEN, message.SerializeToString())
    attempt = partial(connect, state, message, question, deadline, pairs)
    stream, opened = yield from core.repeated(core.io, deadline, attempt)
    state.adopt(stream, opened, 1)
    return state


def _recovery(
    core: Core, message: session_pb2.SessionOpen, replay_bytes: Any, replay_evicted: Any, grace: Any, metadata: Any
) -> Optional[Recovery]:
    most = integer("replay_bytes", replay_bytes)
    if replay_evicted and most == 0:
        raise InvalidArgument.of("replay_evicted", "False without replay_bytes", repr(replay_evicted)[:80])
    seconds = min(checked_seconds("grace", grace, _GRACE_SECONDS if most > 0 else 0.0), _LONGEST_GRACE)
    if most == 0 and seconds == 0:
        return None
    message.grace.seconds, message.grace.nanos = int(seconds), int(seconds % 1 * 1e9)
    log = SessionLog(message, most) if most > 0 else None
    return Recovery(message, checked_metadata(metadata), log, bool(replay_evicted), core.io.lock())


def _opening(
    core: Core,
    layers: Sequence[Layer],
    model: Optional[str],
    rows: Any,
    sources: Any,
    max_tokens: Any,
    max_source_tokens: Any,
    dtype: Any,
    version: Any,
    row_sources: Any,
) -> Tuple[session_pb2.SessionOpen, State]:
    if not isinstance(layers, (list, tuple)):
        raise InvalidArgument.of("layers", "a list of layers", f"a {type(layers).__qualname__}")
    rows = integer("rows", rows, 1)
    sources = integer("sources", sources, 0, rows)
    if row_sources is not None and sources == 0:
        raise InvalidArgument.of("row_sources", "none without sources", repr(row_sources)[:80])
    found = [_layer_message(i, layer) for i, layer in enumerate(layers)]
    message = session_pb2.SessionOpen(
        model="" if model is None else model_name(model),
        version=integer("version", version, 0, 2**64 - 1),
        rows=rows,
        sources=sources,
        layers=found,
        dtype=_dtypes.parse("dtype", dtype),  # type: ignore[arg-type]
        max_tokens=integer("max_tokens", max_tokens),
        max_source_tokens=integer("max_source_tokens", max_source_tokens),
        row_sources=_masks.each_sequence("row_sources", row_sources, rows, 0, max(sources - 1, 0)),
    )
    return message, State(core, layers, rows, sources)


def _layer_message(index: int, layer: Any) -> session_pb2.SessionLayer:
    name = f"layers[{index}]"
    if not isinstance(layer, (SelfLayer, CrossLayer)):
        raise InvalidArgument.of(name, "an attnd.SelfLayer or attnd.CrossLayer", f"a {type(layer).__qualname__}")
    is_self = isinstance(layer, SelfLayer)
    message = session_pb2.SessionLayer(
        kind=_SELF if is_self else _CROSS,  # type: ignore[arg-type]
        heads=integer(f"{name}.heads", layer.heads, 1),
        head_dim=integer(f"{name}.head_dim", layer.head_dim, 1),
        kv_heads=0 if layer.kv_heads is None else integer(f"{name}.kv_heads", layer.kv_heads, 1),
        value_head_dim=0
        if layer.value_head_dim is None
        else integer(f"{name}.value_head_dim", layer.value_head_dim, 1),
    )
    if isinstance(layer, SelfLayer):
        message.table = text(f"{name}.table", layer.table, _TABLE)
        message.bias = 0 if layer.bias else 1  # type: ignore[assignment]
    if layer.scale is not None:
        message.scale = scale_number(layer.scale, f"{name}.scale")
    return message
