"""Small models of each family, inputs with padding, and what is right for them."""

from __future__ import annotations

import copy
from typing import Any, Callable

from .libraries import torch, transformers

SIZES = {"vocab_size": 128, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 3, "num_heads": 4}


def _t5(**options: Any) -> Any:
    return transformers.T5Config(**SIZES, **options)


def _switch() -> Any:
    sizes = {**SIZES, "num_decoder_layers": 3, "num_experts": 4, "num_sparse_encoder_layers": 1}
    return transformers.SwitchTransformersConfig(**sizes)


FAMILIES: dict[str, Callable[[], Any]] = {
    "T5": lambda: transformers.T5EncoderModel(_t5()),
    "Flan-T5": lambda: transformers.T5EncoderModel(_t5(feed_forward_proj="gated-gelu")),
    "T5, other buckets": lambda: transformers.T5EncoderModel(
        _t5(relative_attention_num_buckets=46, relative_attention_max_distance=164)
    ),
    "mT5": lambda: transformers.MT5EncoderModel(transformers.MT5Config(**SIZES)),
    "umT5": lambda: transformers.UMT5EncoderModel(transformers.UMT5Config(**SIZES)),
    "Switch": lambda: transformers.SwitchTransformersEncoderModel(_switch()),
    "T5 with decoder": lambda: transformers.T5ForConditionalGeneration(_t5(decoder_start_token_id=0)),
    "mT5 with decoder": lambda: transformers.MT5ForConditionalGeneration(transformers.MT5Config(**SIZES)),
    "umT5 with decoder": lambda: transformers.UMT5ForConditionalGeneration(transformers.UMT5Config(**SIZES)),
    "Switch with decoder": lambda: transformers.SwitchTransformersForConditionalGeneration(_switch()),
    "Pop2Piano": lambda: transformers.Pop2PianoForConditionalGeneration(transformers.Pop2PianoConfig(**SIZES)),
}


def make(family: str, seed: int = 0) -> Any:
    """A model in float32 with random weights, and bias tables that are wide enough to matter."""
    torch.manual_seed(seed)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("relative_attention_bias.weight"):
                parameter.normal_(std=2.0)
    return model


def padded(batch: int, length: int, padding: str) -> dict[str, Any]:
    """Inputs of a batch whose sequences have different lengths: padding is "none", "right", "left", "holes"."""
    torch.manual_seed(1)
    inputs = {"input_ids": torch.randint(2, SIZES["vocab_size"], (batch, length))}
    if padding == "none":
        return inputs
    mask = torch.ones(batch, length, dtype=torch.long)
    for row in range(1, batch):
        cut = row * length // (batch + 1)
        if padding == "right":
            mask[row, length - cut :] = 0
        elif padding == "left":
            mask[row, :cut] = 0
        else:
            mask[row, cut // 2 : cut // 2 + cut // 4 + 1] = 0
            mask[row, row + 1 :: 5] = 0
    return {**inputs, "attention_mask": mask}


def run(model: Any, inputs: dict[str, Any]) -> Any:
    """The encoder's hidden states."""
    with torch.inference_mode():
        return model.encoder(**inputs).last_hidden_state


def by_eager(model: Any, inputs: dict[str, Any], dtype: Any = None) -> Any:
    """The hidden states as transformers' plainest implementation has them, by a copy of the model."""
    model = copy.deepcopy(model)
    if dtype is not None:
        model = model.to(dtype)
    # Of the whole model, transformers 5.15 does not hand it on to the encoder of an encoder-decoder.
    model.encoder.set_attn_implementation("eager")
    return run(model, inputs)


def kept(inputs: dict[str, Any]) -> Any:
    """Which positions count."""
    mask = inputs.get("attention_mask")
    return torch.ones(inputs["input_ids"].shape, dtype=torch.bool) if mask is None else mask.bool()


def check_as_good_as_eager(found: Any, model: Any, inputs: dict[str, Any]) -> None:
    """Compares with the same weights in float64.

    Everything but the attention is the same here and there, and attnd's attention rounds in another order, so the error
    is of the size of eager's own: within 1.5 times, by its mean square, and three times, by its largest. To that comes
    one rounding of the result, for models so small that eager is exact.
    """
    where = kept(inputs)
    truth = by_eager(model, inputs, torch.float64)[where]
    eager = by_eager(model, inputs)[where].double() - truth
    error = found[where].double() - truth
    unit = torch.finfo(found.dtype).eps / 2
    assert bool(found.isfinite().all())
    assert rms(error) <= 1.5 * rms(eager) + unit * rms(truth), (rms(error), rms(eager))
    assert largest(error) <= 3 * largest(eager) + unit * largest(truth), (largest(error), largest(eager))


def rms(values: Any) -> float:
    return float(values.square().mean().sqrt())


def largest(values: Any) -> float:
    return float(values.abs().max())
