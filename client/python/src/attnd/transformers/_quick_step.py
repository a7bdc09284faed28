"""A short path for steps of a session over the local socket whose shapes occurred before.

A decoder makes two steps for each layer and token, between matrix products that evict code and data from the CPU's
caches, so the amount of Python code between the layer and the socket matters. Unusual steps use the session's methods.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from google.protobuf.message import DecodeError

from attnd import _local_wire, _wire
from attnd._duplex import STEP, Accept, patience
from attnd._local_session import BlockingLocalSession
from attnd._session_wire import Places, SessionWire
from attnd._step_message import StepMessage
from attnd.errors import Error
from attnd.v1 import local_pb2

if TYPE_CHECKING:
    from attnd import Session

_STEP_NUMBER = b"\x08"  # the tag of SessionStep.step
_NUMBERS = (_wire.Q, _wire.K, _wire.V)


class _Form(NamedTuple):
    """Attributes:
    body: the serialised step without its number.
    places: the tensors' places in shared memory; None if they travel in the datagram.
    inputs: the inputs' places as tensors.
    output: the place that the server writes to, as a tensor of the output's shape.
    shape: the output's.
    output_bytes: the output's size.
    """

    body: bytes
    places: Optional[Places]
    inputs: Tuple[Any, ...]
    output: Any
    shape: Tuple[int, ...]
    output_bytes: int


class QuickSteps:
    """The quick steps of one session. They take turns with the steps of the session's own methods.

    Args:
        session: an open session.
        timeout: of each step, in seconds.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self._state = session._state
        self._timeout = timeout
        self._patience = patience(timeout)
        self._forms: Dict[Any, _Form] = {}

    def attend(self, layer: int, tensors: Tuple[Any, ...], more: bytes = b"") -> Optional[Any]:
        """As `Session.attend` in layout "bshd".

        Args:
            layer: of the session.
            tensors: torch tensors: the query, or query, key and value: [rows, tokens, heads, head_dim].
            more: further serialised fields of the step.

        Returns:
            The output; None if nothing was done, and the session's own method must be used.
        """
        state = self._state
        stream = state.stream
        if type(stream) is not BlockingLocalSession or state.recovery is not None:
            return None
        state.core.check_open()
        key = (layer, len(tensors), tensors[0].shape, tensors[-1].shape, tensors[0].dtype)
        form = self._forms.get(key)
        number = 0

        def say(wire: SessionWire) -> Optional[List[Any]]:
            nonlocal form, number
            if form is None or (form.places is not None and form.places.region is not wire.region):
                form = self._prepare(wire, layer, tensors)
                if form is None:
                    return None
                self._forms[key] = form
            number = state.next_step
            body = _STEP_NUMBER + _wire.varint(number) + form.body + more
            if form.places is None:
                wire.expect(None)
                sent = [(name, _array(tensor)) for name, tensor in zip(_NUMBERS, tensors)]
                return _local_wire.session(STEP, body, b"", sent)
            for place, tensor in zip(form.inputs, tensors):
                place.copy_(tensor)
            wire.expect(form.places.results)
            return _local_wire.session(STEP, body, form.places.names)

        def take(data: bytes) -> Optional[Any]:
            assert form is not None
            try:
                reply = local_pb2.LocalReply.FromString(data).session
            except DecodeError:
                return None
            result = reply.result
            if result.step != number or result.code != 0:
                return None
            if form.places is not None:
                output = form.output.clone()
            elif len(reply.output) == form.output_bytes:
                output = torch.frombuffer(bytearray(reply.output), dtype=tensors[0].dtype).view(form.shape)
            else:
                return None
            state.next_step = number + 1
            return output

        def accept() -> Accept[Any]:
            message = self._message(layer, tensors)
            message.is_step(number)
            return message.accept

        answer = stream.ask_prepared(say, take, accept, self._patience)
        if isinstance(answer, Error):
            raise answer
        return answer if answer is None or isinstance(answer, torch.Tensor) else answer.output

    def _message(self, layer: int, tensors: Tuple[Any, ...]) -> StepMessage:
        three = (*tensors, None, None)[:3]
        return StepMessage(self._state, layer, three, "bshd", None, None, False, self._timeout)

    def _prepare(self, wire: SessionWire, layer: int, tensors: Tuple[Any, ...]) -> Optional[_Form]:
        message = self._message(layer, tensors)
        form, question = message.form, message.question()
        assert form.output_shape is not None
        shared_bytes = wire.shared_bytes(question)
        if not wire.has_room(shared_bytes):
            return None
        if shared_bytes == 0:
            return _Form(form.body, None, (), None, form.output_shape, form.output_bytes)
        places = wire.places(question)
        as_tensor = partial(_tensor, dtype=tensors[0].dtype)
        inputs = tuple(as_tensor(place, shape=tensor.shape) for place, tensor in zip(places.inputs, tensors))
        output = as_tensor(places.results[_wire.OUTPUT], shape=form.output_shape)
        return _Form(form.body, places, inputs, output, form.output_shape, form.output_bytes)


def _array(tensor: Any) -> Any:
    """A tensor as a numpy array over the same memory; bfloat16 as int16."""
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return tensor.numpy()


def _tensor(array: Any, dtype: Any, shape: Any) -> Any:
    """A tensor over the memory of an array."""
    return torch.from_numpy(array.reshape(-1).view("u1")).view(dtype).view(shape)
