"""Attaches models: the implementation of attach() and detach()."""

from __future__ import annotations

import logging
from typing import Any, List, Optional

from attnd._arguments import integer
from attnd.transformers import _attention, _calibrate, _calibrate_decoder
from attnd.transformers._decoders import find_decoders
from attnd.transformers._families import find_encoders, none_found
from attnd.transformers._handle import Handle
from attnd.transformers._handle import handle_of as _handle_of
from attnd.transformers._memory import STORAGE
from attnd.transformers._refused import Refused
from attnd.transformers._server import Connection

_log = logging.getLogger("attnd.transformers")


def attach(
    model: Any,
    target: Any,
    *,
    min_length: Optional[int] = None,
    min_cached_tokens: Optional[int] = None,
    replay_bytes: int = 0,
    decoder: bool = True,
    timeout: float = 60.0,
) -> Handle:
    """See attnd.transformers.attach."""
    encoders = find_encoders(model)
    decoders = find_decoders(model) if decoder else []
    if not encoders and not decoders:
        raise none_found(model)
    attached = _handle_of(model)
    if attached is not None:
        expected = "one that is not attached (attnd.transformers.detach(model))"
        raise Refused.of("model", expected, f"one that is attached to {attached.target!r}")
    for encoder in encoders:
        _check(encoder.stack, encoder.layers)
    for one in decoders:
        _check(one.stack, [layer.module for layer in one.self_layers + one.cross_layers])
    if min_length is not None:
        min_length = integer("min_length", min_length)
    if min_cached_tokens is not None:
        min_cached_tokens = integer("min_cached_tokens", min_cached_tokens)
    replay_bytes = integer("replay_bytes", replay_bytes)
    _attention.register()
    connection = Connection(target, timeout)
    try:
        handle = Handle(model, encoders, decoders, connection, replay_bytes, timeout)
        handle.tables()  # so that a table that can be neither found nor uploaded is an error now
        if encoders:
            handle.min_length = _calibrate.measure(handle, encoders) if min_length is None else min_length
        if decoders:
            measure = _calibrate_decoder.measure
            handle.min_cached_tokens = measure(handle, decoders[0]) if min_cached_tokens is None else min_cached_tokens
    except BaseException:
        connection.close()
        raise
    handle.put()
    _log.info("%s", handle)
    return handle


def handle_of(model: Any) -> Handle:
    """The handle of an attached model. Raises Refused if the model is not attached."""
    handle = _handle_of(model)
    if handle is None:
        raise Refused.of("model", "one that is attached", f"a {type(model).__qualname__} that is not")
    return handle


def _check(stack: Any, layers: List[Any]) -> None:
    for layer in layers:
        weight = next(layer.parameters())
        if weight.device.type != "cpu":
            raise Refused.of("model", "a model in the CPU's memory", f"one on {weight.device}")
        if weight.is_floating_point() and weight.dtype not in STORAGE:
            raise Refused.of("model", "a model of float32, float16 or bfloat16", f"one of {weight.dtype}")
    if stack.config.output_attentions:
        expected = "False, since the weights of the attention are never made"
        raise Refused.of("output_attentions", expected, "True in the model's config")
