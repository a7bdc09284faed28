"""A model's encoders, attached and not, side by side."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping

import torch

from attnd.errors import InvalidArgument
from attnd.transformers import _attach
from attnd.transformers._families import Encoder, find_encoders
from attnd.transformers._handle import Handle, handle_of

_INPUTS = ("input_ids", "inputs_embeds", "attention_mask")


@dataclass(frozen=True)
class Difference:
    """What :func:`attnd.transformers.check` found. ``str()`` is what it prints.

    Attributes:
        largest: largest absolute difference of the encoders' hidden states, at positions that the mask keeps.
        magnitude: largest absolute value of the model's own there.
        attached_seconds: of the fastest pass by attnd, over all encoders.
        local_seconds: of the fastest pass by the model itself.
        batch, tokens: of the inputs.
        implementation: the model's own attention implementation.
    """

    largest: float
    magnitude: float
    attached_seconds: float
    local_seconds: float
    batch: int
    tokens: int
    implementation: str

    def __str__(self) -> str:
        return (
            f"{self.batch} x {self.tokens} tokens: largest difference {self.largest:.2g} of {self.magnitude:.2g}; "
            f"attnd {self.attached_seconds * 1e3:.1f} ms, {self.implementation} {self.local_seconds * 1e3:.1f} ms "
            f"({self.local_seconds / self.attached_seconds:.2f} times as fast)"
        )


def check(model: Any, inputs: Mapping[str, Any], target: Any, *, repeats: int, quiet: bool) -> Difference:
    """See attnd.transformers.check."""
    handle = handle_of(model)
    if handle is not None:
        return _compare(model, handle, inputs, repeats, quiet)
    with _attach.attach(model, target, min_length=0, timeout=60.0) as handle:
        return _compare(model, handle, inputs, repeats, quiet)


def _compare(model: Any, handle: Handle, inputs: Mapping[str, Any], repeats: int, quiet: bool) -> Difference:
    taken = {name: inputs[name] for name in _INPUTS if inputs.get(name) is not None}
    tokens = taken.get("input_ids", taken.get("inputs_embeds"))
    if tokens is None:
        raise InvalidArgument.of("inputs", "input_ids or inputs_embeds", str(sorted(inputs))[:80])
    encoders = find_encoders(model)
    training = [encoder.stack.training for encoder in encoders]
    attached_seconds = local_seconds = float("inf")
    try:
        for encoder in encoders:
            encoder.stack.eval()
        with torch.inference_mode():
            for _ in range(max(1, repeats)):
                start = time.perf_counter()
                attached = _run(encoders, taken)
                attached_seconds = min(attached_seconds, time.perf_counter() - start)
                with handle.suspended():
                    implementation = str(encoders[0].stack.config._attn_implementation)
                    start = time.perf_counter()
                    local = _run(encoders, taken)
                    local_seconds = min(local_seconds, time.perf_counter() - start)
    finally:
        for encoder, was in zip(encoders, training):
            encoder.stack.train(was)
    mask = taken.get("attention_mask")
    kept = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
    differences = [(one.double() - other.double())[kept].abs().max() for one, other in zip(attached, local)]
    found = Difference(
        largest=float(max(differences)),
        magnitude=float(max(states.double()[kept].abs().max() for states in local)),
        attached_seconds=attached_seconds,
        local_seconds=local_seconds,
        batch=int(tokens.shape[0]),
        tokens=int(tokens.shape[1]),
        implementation=implementation,
    )
    if not quiet:
        print(found)
    return found


def _run(encoders: List[Encoder], inputs: Dict[str, Any]) -> List[Any]:
    return [encoder.stack(**inputs).last_hidden_state for encoder in encoders]
