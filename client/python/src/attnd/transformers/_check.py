"""Compares a model with and without attnd: its encoders' output, and what it generates."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, TypeVar

import torch

from attnd._arguments import integer
from attnd.errors import InvalidArgument
from attnd.transformers import _attach
from attnd.transformers._families import Encoder, find_encoders
from attnd.transformers._handle import Handle, handle_of

T = TypeVar("T")

_INPUTS = ("input_ids", "inputs_embeds", "attention_mask")


@dataclass(frozen=True)
class Generated:
    """What :func:`attnd.transformers.check` found for ``generate``. ``str()`` is what it prints.

    Attributes:
        first_difference: index of the first new token that differs in any row; None if all are the same.
        largest: largest absolute difference of the logits, over the steps up to the first difference; with beams, if
            tokens differ, of the first step only.
        magnitude: largest absolute value of the model's own logits in these steps.
        attached_seconds: the fastest call with attnd.
        local_seconds: the fastest call of the model itself.
        rows, new_tokens, num_beams: of the call.
    """

    first_difference: Optional[int]
    largest: float
    magnitude: float
    attached_seconds: float
    local_seconds: float
    rows: int
    new_tokens: int
    num_beams: int

    @property
    def same_tokens(self) -> bool:
        """Whether all tokens are the same."""
        return self.first_difference is None

    def __str__(self) -> str:
        tokens = "the same" if self.same_tokens else f"others from new token {self.first_difference} on"
        return (
            f"generate, {self.rows} x {self.new_tokens} new tokens, {self.num_beams} beams: {tokens}; "
            f"largest difference of logits {self.largest:.2g} of {self.magnitude:.2g}; "
            + _times(self.attached_seconds, self.local_seconds, "the model")
        )


@dataclass(frozen=True)
class Difference:
    """What :func:`attnd.transformers.check` found. ``str()`` is what it prints.

    Attributes:
        largest: largest absolute difference of the encoders' hidden states, at positions that the mask keeps; NaN if no
            encoder is attached.
        magnitude: largest absolute value of the model's own hidden states at these positions.
        attached_seconds: the encoders' fastest pass with attnd.
        local_seconds: the encoders' fastest pass by the model itself.
        batch, tokens: sizes of the inputs.
        implementation: the model's own attention implementation.
        generated: the result for ``generate``; None if no decoder is attached, or no tokens were asked for.
    """

    largest: float
    magnitude: float
    attached_seconds: float
    local_seconds: float
    batch: int
    tokens: int
    implementation: str
    generated: Optional[Generated] = None

    def __str__(self) -> str:
        lines = []
        if self.largest == self.largest:
            lines.append(
                f"{self.batch} x {self.tokens} tokens: largest difference {self.largest:.2g} of {self.magnitude:.2g}; "
                + _times(self.attached_seconds, self.local_seconds, self.implementation)
            )
        if self.generated is not None:
            lines.append(str(self.generated))
        return "\n".join(lines)


def check(
    model: Any, inputs: Mapping[str, Any], target: Any, *, repeats: int, new_tokens: int, num_beams: int, quiet: bool
) -> Difference:
    """See attnd.transformers.check."""
    new_tokens, num_beams = integer("new_tokens", new_tokens), integer("num_beams", num_beams, 1)
    handle = handle_of(model)
    if handle is not None:
        return _compare(model, handle, inputs, max(1, repeats), new_tokens, num_beams, quiet)
    with _attach.attach(model, target, min_length=0, min_cached_tokens=0) as handle:
        return _compare(model, handle, inputs, max(1, repeats), new_tokens, num_beams, quiet)


def _compare(
    model: Any, handle: Handle, inputs: Mapping[str, Any], repeats: int, new_tokens: int, num_beams: int, quiet: bool
) -> Difference:
    taken = {name: inputs[name] for name in _INPUTS if inputs.get(name) is not None}
    tokens = taken.get("input_ids", taken.get("inputs_embeds"))
    encoders = find_encoders(model)
    generates = new_tokens > 0 and handle.decoder_layers > 0 and hasattr(model, "generate")
    if tokens is None and (encoders or not generates):
        raise InvalidArgument.of("inputs", "input_ids or inputs_embeds", str(sorted(inputs))[:80])
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        found = _encoders(handle, encoders, taken, tokens, repeats)
        if generates:
            found = replace(found, generated=_generate(model, handle, inputs, repeats, new_tokens, num_beams))
    finally:
        for module in training:
            module.training = True
    if not quiet:
        print(found)
    return found


def _encoders(handle: Handle, encoders: List[Encoder], inputs: Dict[str, Any], tokens: Any, repeats: int) -> Difference:
    batch, length = (0, 0) if tokens is None else tokens.shape[:2]
    if not encoders:
        return Difference(float("nan"), float("nan"), float("nan"), float("nan"), int(batch), int(length), "")
    attached, local, attached_seconds, local_seconds, implementation = _side_by_side(
        handle,
        lambda: [encoder.stack(**inputs).last_hidden_state for encoder in encoders],
        lambda: str(encoders[0].stack.config._attn_implementation),
        repeats,
    )
    mask = inputs.get("attention_mask")
    kept = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
    differences = [(one.double() - other.double())[kept].abs().max() for one, other in zip(attached, local)]
    return Difference(
        largest=float(max(differences)),
        magnitude=float(max(states.double()[kept].abs().max() for states in local)),
        attached_seconds=attached_seconds,
        local_seconds=local_seconds,
        batch=int(batch),
        tokens=int(length),
        implementation=implementation,
    )


def _generate(
    model: Any, handle: Handle, inputs: Mapping[str, Any], repeats: int, new_tokens: int, num_beams: int
) -> Generated:
    def run() -> Any:
        return model.generate(
            **inputs,
            max_new_tokens=new_tokens,
            num_beams=num_beams,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )

    attached, local, attached_seconds, local_seconds, _ = _side_by_side(handle, run, str, repeats)
    made = len(local.logits)
    prompt = inputs.get("decoder_input_ids")
    begin = 1 if prompt is None else int(prompt.shape[1])
    one, other = attached.sequences, local.sequences
    width = min(one.shape[1], other.shape[1])
    columns = (one[:, :width] != other[:, :width]).any(0).nonzero()
    first: Optional[int] = None
    if len(columns) > 0:
        first = max(0, int(columns[0]) - begin)
    elif one.shape != other.shape:
        first = width - begin
    # If beams differ at the end, they may have differed from the first step on.
    steps = made if first is None else 1 if num_beams > 1 else first + 1
    pairs = [(a.double(), b.double()) for a, b in zip(attached.logits[:steps], local.logits)]
    return Generated(
        first_difference=first,
        largest=max((float((a - b).abs().max()) for a, b in pairs), default=float("nan")),
        magnitude=max((float(b[b.isfinite()].abs().max()) for _, b in pairs), default=float("nan")),
        attached_seconds=attached_seconds,
        local_seconds=local_seconds,
        rows=int(local.sequences.shape[0]),
        new_tokens=made,
        num_beams=num_beams,
    )


def _side_by_side(
    handle: Handle, run: Callable[[], T], implementation: Callable[[], str], repeats: int
) -> Tuple[T, T, float, float, str]:
    """Returns the results with and without attnd, the fastest time of each, and the model's own `implementation`."""
    attached_seconds = local_seconds = float("inf")
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            attached = run()
            attached_seconds = min(attached_seconds, time.perf_counter() - start)
            with handle.suspended():
                name = implementation()
                start = time.perf_counter()
                local = run()
                local_seconds = min(local_seconds, time.perf_counter() - start)
    return attached, local, attached_seconds, local_seconds, name


def _times(attached: float, local: float, name: str) -> str:
    return f"attnd {attached * 1e3:.1f} ms, {name} {local * 1e3:.1f} ms ({local / attached:.2f} times as fast)"
