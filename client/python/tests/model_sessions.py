"""A server of sessions as a model in memory, which loses what a test tells it to lose, and a client beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import pytest

import attnd
from attnd import _step, _wire
from attnd._duplex import OPEN, RESUME, STEP, Duplex, closed_session
from attnd._operation import Operation, run
from attnd._session import State, open_session
from attnd._transport import Transport
from attnd.v1 import session_pb2
from scripted import Clock, ScriptedIo, scripted_core


@dataclass
class Kept:
    """What the server keeps of a session."""

    opening: session_pb2.SessionOpen
    token: bytes
    # By layer, of each row: sums of the keys that were appended, one for each token.
    tokens: List[List[List[float]]]
    key_starts: List[int]
    last_step: int = 0


@dataclass
class ModelServer:
    """Attributes:
    sessions: by token.
    asked: what came: "open", "resume", or the number of a step.
    timeouts: of the steps, in seconds.
    streams: all that were begun.
    before, after: called with what came, before and after it is done; may raise.
    content: of the model.
    last_step_is_off_by: added to what a resumption says.
    """

    content: str = "first"
    max_message_bytes: int = 0
    last_step_is_off_by: int = 0
    going_away: Optional[int] = None
    sessions: Dict[bytes, Kept] = field(default_factory=dict)
    asked: List[Any] = field(default_factory=list)
    openings: List[session_pb2.SessionOpen] = field(default_factory=list)
    timeouts: List[float] = field(default_factory=list)
    sizes: List[int] = field(default_factory=list)
    streams: List[ModelStream] = field(default_factory=list)
    before: Callable[[Any], None] = lambda what: None
    after: Callable[[Any], None] = lambda what: None

    def open_streams(self) -> List[ModelStream]:
        return [stream for stream in self.streams if not stream.closed]


class ModelTransport(Transport):
    name = "model"

    def __init__(self, server: ModelServer) -> None:
        self.server = server

    def duplex(self, opening: Any, deadline: Any, metadata: Any) -> Operation[Duplex]:
        def begin() -> Duplex:
            self.server.streams.append(ModelStream(self.server))
            return self.server.streams[-1]

        return (yield begin)

    def close(self) -> None:
        pass


class ModelStream(Duplex):
    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._kept: Optional[Kept] = None
        self.closed = False

    def ask(self, make: Any, accept: Any, seconds: float = math.inf) -> Any:
        self._check()
        question = make()
        try:
            self._server.sizes.append(len(question.body) + sum(array.nbytes for _, array in question.tensors))
            for reply in self._replies(question):
                answer = accept(reply, {})
                if answer is not None:
                    return answer
        except BaseException as error:
            self._failure = error if isinstance(error, attnd.Error) else attnd.Unavailable("interrupted")
            raise
        raise AssertionError("no answer")

    def close(self) -> None:
        self.closed = True
        self._failure = self._failure or closed_session()

    def _replies(self, question: Any) -> List[session_pb2.SessionReply]:
        server = self._server
        if question.field == STEP:
            step = session_pb2.SessionStep.FromString(question.body)
            what: Any = step.step
        else:
            what = {OPEN: "open", RESUME: "resume"}[question.field]
        server.asked.append(what)
        server.before(what)
        reply = session_pb2.SessionReply()
        if question.field == STEP:
            reply.result.CopyFrom(self._step(step, dict(question.tensors)))
        else:
            reply.opened.CopyFrom(self._open(question) if question.field == OPEN else self._resume(question))
        server.after(what)
        found = [reply]
        if server.going_away is not None:
            notice = session_pb2.SessionReply()
            notice.going_away.time_left.seconds = server.going_away
            found.insert(0, notice)
        return found

    def _open(self, question: Any) -> session_pb2.SessionOpened:
        opening = session_pb2.SessionOpen.FromString(question.body)
        self._server.openings.append(opening)
        token = b"token %d" % len(self._server.openings) if opening.grace.seconds > 0 else b""
        counts = [opening.rows if layer.kind == 1 else opening.sources for layer in opening.layers]
        self._kept = Kept(opening, token, [[[] for _ in range(count)] for count in counts], [0] * opening.rows)
        if token:
            self._server.sessions[token] = self._kept
        return self._opened()

    def _resume(self, question: Any) -> session_pb2.SessionOpened:
        token = session_pb2.SessionResume.FromString(question.body).token
        if token not in self._server.sessions:
            raise attnd.NotFound("no such session", field="resume.token")
        self._kept = self._server.sessions[token]
        opened = self._opened()
        opened.last_step = self._kept.last_step + self._server.last_step_is_off_by
        return opened

    def _opened(self) -> session_pb2.SessionOpened:
        assert self._kept is not None
        return session_pb2.SessionOpened(
            content_hash=self._server.content,
            version=1,
            resume_token=self._kept.token,
            max_message_bytes=self._server.max_message_bytes,
        )

    def _step(self, step: session_pb2.SessionStep, tensors: Dict[int, Any]) -> session_pb2.SessionStepResult:
        kept = self._kept
        assert kept is not None
        self._server.timeouts.append(
            step.timeout.seconds + step.timeout.nanos / 1e9 if step.HasField("timeout") else math.inf
        )
        rows = kept.tokens[step.layer]
        if step.step != kept.last_step:  # else it was done before, and is only answered again
            assert step.step == kept.last_step + 1, (step.step, kept.last_step)
            self._change(step)
            keys = tensors.get(_wire.K)
            if keys is not None:
                by_head = keys.transpose(0, 2, 1, 3) if step.layout == 2 else keys
                for i, row in enumerate(rows):
                    length = step.key_lengths[i] if step.key_lengths else by_head.shape[2]
                    row += [float(by_head[i, :, t].astype("f8").sum()) for t in range(length)]
            kept.last_step = step.step
        return session_pb2.SessionStepResult(
            step=step.step, dtype=step.output_dtype, lengths=[len(row) for row in kept.tokens[step.layer]]
        )

    def _change(self, step: session_pb2.SessionStep) -> None:
        kept = self._kept
        assert kept is not None
        for layer, tokens in zip(kept.opening.layers, kept.tokens):
            if layer.kind != 1:
                continue
            if step.reorder:
                tokens[:] = [list(tokens[row]) for row in step.reorder]
            for row, length in zip(tokens, step.truncate):
                del row[length:]
        if step.reorder:
            kept.key_starts = [kept.key_starts[row] for row in step.reorder]
        if step.key_starts:
            kept.key_starts = list(step.key_starts)


ROWS = 3
LAYERS = [attnd.SelfLayer(2, 4), attnd.SelfLayer(2, 4, bias=False)]
LOST = attnd.Unavailable("lost")


class Lock:
    """Counts its holders."""

    def __init__(self) -> None:
        self.held = 0

    def acquire(self) -> None:
        assert self.held == 0, "it would wait for ever"
        self.held += 1

    def release(self) -> None:
        self.held -= 1


class Place:
    """A client and its server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, retry: Optional[attnd.Retry] = attnd.Retry()) -> None:  # noqa: B008
        self.clock = Clock(monkeypatch, "_retry", "_deadline")
        self.io = ScriptedIo(self.clock)
        self.io.lock = Lock  # type: ignore[method-assign]
        self.core = scripted_core(self.io, retry)
        self.server = ModelServer()
        self.core.transports.append(ModelTransport(self.server))
        self.random = np.random.default_rng(0)

    def open(self, **given: Any) -> State:
        settings = {"rows": ROWS, "max_tokens": 1000, "replay_bytes": 1 << 20, **given}
        return run(open_session(self.core, LAYERS, "m", **settings))

    def keys(self, length: int) -> Any:
        return self.random.standard_normal((ROWS, 2, length, 4)).astype(np.float32)

    def append(self, state: State, layer: int = 0, length: int = 2, **given: Any) -> Any:
        keys = self.keys(length)
        return run(_step.append(state, layer, keys, keys, **given))

    def lose(self, times: int = 1, error: attnd.Error = LOST, *, done: bool = False, forget: bool = False) -> None:
        """The next questions fail, before or after they are done; with `forget` the server then has no sessions."""
        left = [times]

        def fail(what: Any) -> None:
            if left[0] > 0:
                left[0] -= 1
                if forget:
                    self.server.sessions.clear()
                raise type(error)(error.message, field=error.field, retry_delay=error.retry_delay)

        self.server.before, self.server.after = (lambda what: None, fail) if done else (fail, lambda what: None)

    def kept(self) -> Any:
        """What the server has of the session: its tokens by layer and row."""
        stream = self.server.open_streams()[-1]
        assert stream._kept is not None
        return stream._kept.tokens


def check_settled(place: Place, state: State) -> None:
    """Nothing is held, and one stream is open: the session's, if it goes on."""
    assert state.recovery is not None
    assert state.recovery.turn.held == 0
    alive = [stream for stream in place.server.open_streams() if stream._failure is None]
    assert alive == ([state.stream] if state.recovery.over is None else [])
