"""Restores a session that was lost with its connection or server, or evicted: resumes it, or opens a new one and fills
it from the log (replay)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, Sequence, Tuple, Union

from attnd import _process, _wire
from attnd._answer import not_an_answer
from attnd._deadline import Deadline
from attnd._duplex import INTERRUPTED, OPEN, RESUME, STEP, Duplex, Question, Tensors, closed_session, patience
from attnd._operation import Metadata, Operation
from attnd._retry import comes_back, is_eviction, is_loss
from attnd._session_connect import connect
from attnd._session_log import SessionLog
from attnd._status import error_in
from attnd.errors import Error, FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from attnd.v1 import session_pb2

if TYPE_CHECKING:
    from attnd._session import State
    from attnd._step_message import StepMessage, StepReply

# The most bytes that a replay appends at once; and the bytes of its message besides tensors: in all, and for each row
# or source.
_PIECE_BYTES = 4 << 20
_BESIDE, _BESIDE_EACH = 1024, 20

_Tensors = Sequence[Tuple[int, Any]]


class Recovery:
    """What a session keeps for its recovery. Guarded by `turn`.

    Attributes:
        turn: a lock; in the asyncio client it is awaited.
        log: the copy to replay; None if there is to be no replay.
        replays_evicted: whether a session is replayed after an eviction too.
        over: the error with which the session has ended for good; None before.
        resumes, replays: how often it was resumed, and replayed.
        restore_model: makes the model available on a server that has lost it, updates the model in the opening, and
            returns its content hash. It blocks. None: a lost model is an error.
    """

    restore_model: Optional[Callable[[session_pb2.SessionOpen], str]] = None

    def __init__(
        self,
        opening: session_pb2.SessionOpen,
        metadata: Metadata,
        log: Optional[SessionLog],
        replays_evicted: bool,
        turn: Any,
    ) -> None:
        self.opening = opening
        self.metadata = metadata
        self.log = log
        self.replays_evicted = replays_evicted
        self.turn = turn
        self.token = b""
        self.over: Optional[Error] = None
        self.resumes = 0
        self.replays = 0

    @property
    def replayable(self) -> bool:
        """Whether there is a log that has not been given up."""
        return self.log is not None and self.log.kept

    def is_loss(self, error: Error) -> bool:
        """Whether the error means that the session is lost and may be restored."""
        return is_loss(error) or (self.replays_evicted and is_eviction(error))

    def is_worth_another(self, error: Error) -> bool:
        """Whether another attempt to restore the session may succeed."""
        return self.is_loss(error) or comes_back(error)

    def end(self, error: Error) -> None:
        """Ends the session for good."""
        self.over = error
        if self.log is not None:
            self.log.give_up()


def ask(state: State, recovery: Recovery, message: StepMessage, timeout: float) -> Operation[Union[StepReply, Error]]:
    """Asks a step. If the session is lost, restores it and asks the step again."""
    deadline = Deadline(timeout)
    yield recovery.turn.acquire
    try:
        if recovery.over is not None:
            raise recovery.over.with_traceback(None)
        try:
            return (yield from _asked(state, recovery, message, deadline))
        except Error as error:
            if not recovery.is_loss(error):
                raise
            lost = error
        return (yield from _restored(state, recovery, message, deadline, lost))
    except ResourceExhausted:
        raise  # if it concerned only the step, the session continues
    except BaseException as error:
        recovery.end(error if isinstance(error, Error) else Unavailable(INTERRUPTED))
        raise
    finally:
        recovery.turn.release()


def close(state: State, recovery: Recovery) -> Operation[None]:
    """Ends the session. A lost session is not restored after this."""
    if _process.forked():
        return  # the session is the parent's
    recovery.over = recovery.over or closed_session()
    yield recovery.turn.acquire
    try:
        yield state.stream.close
        recovery.end(recovery.over)
    finally:
        recovery.turn.release()


def grow(state: State, max_tokens: int) -> Operation[None]:
    """Replaces a session with a log by a new one, filled from the log, whose rows may have `max_tokens`."""
    recovery = state.recovery
    assert recovery is not None
    deadline = Deadline(state.core.options.timeout)
    yield recovery.turn.acquire
    try:
        recovery.opening.max_tokens = max_tokens
        recovery.token = b""
        yield state.stream.close
        yield from state.core.repeated(
            state.core.io, deadline, partial(_restore, state, recovery, deadline), recovery.is_worth_another
        )
    except BaseException as error:
        recovery.end(error if isinstance(error, Error) else Unavailable(INTERRUPTED))
        raise
    finally:
        recovery.turn.release()


def _asked(
    state: State, recovery: Recovery, message: StepMessage, deadline: Deadline
) -> Operation[Union[StepReply, Error]]:
    try:
        reply: Union[StepReply, Error] = yield lambda: state.stream.ask(
            message.question, message.accept, patience(deadline.left())
        )
    except Error as error:
        if is_eviction(error):
            recovery.token = b""  # an evicted session cannot be resumed
        raise
    return reply


def _restored(
    state: State, recovery: Recovery, message: StepMessage, deadline: Deadline, lost: Error
) -> Operation[Union[StepReply, Error]]:
    def attempt() -> Operation[Union[StepReply, Error]]:
        yield from _restore(state, recovery, deadline)
        message.shorten(deadline.left())
        try:
            return (yield from _asked(state, recovery, message, deadline))
        except ResourceExhausted as error:  # too large for this transport; nothing was sent
            return error

    try:
        if not recovery.token and not recovery.replayable:
            raise lost
        return (yield from state.core.repeated(state.core.io, deadline, attempt, recovery.is_worth_another))
    except Error as error:
        failure = error
        if error is not lost and (recovery.is_worth_another(error) or error.field == "resume.token"):
            failure = lost.with_message(f"{lost.message}; then: {error.message}")
        recovery.end(failure)
        yield state.stream.close
        raise failure from (None if failure is lost else lost)


def _restore(state: State, recovery: Recovery, deadline: Deadline) -> Operation[None]:
    if recovery.over is not None:
        raise recovery.over.with_traceback(None)
    metadata = (*recovery.metadata, *state.core.options.authorization())
    if recovery.token and (yield from _resume(state, recovery, deadline, metadata)):
        return
    log = recovery.log
    assert log is not None
    stream, opened = yield from _reopen(state, recovery, log, deadline, metadata)
    try:
        steps = 0
        for steps, (step, tensors) in enumerate(_steps(state, log, stream), 1):
            step.step = steps
            yield from _say(state, stream, step, tensors, deadline)
    except Error:
        yield stream.close
        raise
    recovery.replays += 1
    state.adopt(stream, opened, steps + 1)


def _reopen(
    state: State, recovery: Recovery, log: SessionLog, deadline: Deadline, metadata: Metadata
) -> Operation[Tuple[Duplex, session_pb2.SessionOpened]]:
    """Opens a new, empty session with a model of the same content as the lost session's."""
    content = state.opened.content_hash
    restore_model = recovery.restore_model
    while True:
        opening = log.opening()
        question = Question(OPEN, opening.SerializeToString())
        try:
            stream, opened = yield from connect(state, opening, question, deadline, metadata)
        except NotFound:
            if restore_model is None:
                raise
        else:
            if opened.content_hash == content:
                return stream, opened
            yield stream.close
            if restore_model is None:
                raise FailedPrecondition.of(
                    "model",
                    f"{opening.model} with the content that the session began with ({content})",
                    f"version {opened.version} with other content ({opened.content_hash})",
                )
        content = yield partial(restore_model, recovery.opening)
        restore_model = None


def _resume(state: State, recovery: Recovery, deadline: Deadline, metadata: Metadata) -> Operation[bool]:
    """Resumes the session. Returns False if the server no longer has it and there is a log; without one, raises."""
    question = Question(RESUME, session_pb2.SessionResume(token=recovery.token).SerializeToString())
    try:
        stream, opened = yield from connect(state, recovery.opening, question, deadline, metadata)
    except NotFound:
        recovery.token = b""
        if not recovery.replayable:
            raise
        return False
    # Whether the step under way was done or not, it is sent again with the same number.
    if state.next_step - opened.last_step not in (0, 1):
        yield stream.close
        raise not_an_answer(f"last_step is {opened.last_step} where {state.next_step - 1} were answered")
    recovery.resumes += 1
    state.adopt(stream, opened, state.next_step)
    return True


def _say(
    state: State, stream: Duplex, step: session_pb2.SessionStep, tensors: _Tensors, deadline: Deadline
) -> Operation[None]:
    """Sends one of the steps that fill a session."""
    question = Question(STEP, step.SerializeToString(), tensors)

    def accept(reply: session_pb2.SessionReply, _: Tensors) -> Optional[session_pb2.SessionStepResult]:
        if not state.answers(reply):
            return None
        if not reply.HasField("result") or reply.result.step != step.step:
            raise not_an_answer("it is none to the step")
        return reply.result

    result: session_pb2.SessionStepResult = yield lambda: stream.ask(
        lambda: question, accept, patience(deadline.left())
    )
    if result.code != 0:
        raise error_in(result)
    lengths = [before + more for before, more in zip(step.expected_lengths, step.key_lengths)]
    if tensors and lengths != list(result.lengths):
        raise not_an_answer(f"lengths: expected {lengths}, got {list(result.lengths)}")


def _steps(state: State, log: SessionLog, stream: Duplex) -> Iterator[Tuple[session_pb2.SessionStep, _Tensors]]:
    """The steps that fill an empty session from the log."""
    for step in log.settings():
        yield step, ()
    most = _PIECE_BYTES
    if stream.name == "grpc":
        beside = _BESIDE + _BESIDE_EACH * max(state.rows, state.sources)
        most = min(most, int(min(stream.max_message_bytes, 1 << 40)) - beside)
    for layer in range(len(state.layers)):
        for piece in log.pieces(layer, most):
            step = session_pb2.SessionStep(
                layer=layer,
                layout=1,  # type: ignore[arg-type]
                dtype=log.code,  # type: ignore[arg-type]
                expected_lengths=piece.before,
                key_length=piece.k.shape[2],
                key_lengths=piece.lengths,
            )
            yield step, ((_wire.K, piece.k), (_wire.V, piece.v))
