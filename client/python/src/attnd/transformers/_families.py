"""Finds the encoders of a model that can be attached, and explains why others cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping

from attnd.transformers._refused import Refused

# Class of a stack of layers: class of its attention. The encoders of these families use the attention interface, with a
# bias that depends only on the offset.
_STACKS: Dict[str, str] = {
    "T5Stack": "T5Attention",
    "MT5Stack": "MT5Attention",
    "UMT5Stack": "UMT5Attention",
    "SwitchTransformersStack": "SwitchTransformersAttention",
    "Pop2PianoStack": "Pop2PianoAttention",
}
ACCEPTED = "an encoder or a decoder of the T5 family (T5, mT5, umT5, Switch, Pop2Piano)"

# Why a family cannot be attached, by the beginning of a class's name.
_REASONS: Dict[str, str] = {
    "LongT5": "its encoder attends within windows or to summaries, and asks no attention interface",
    "MPNet": "it computes its attention in its own class, and asks no attention interface",
    "Bloom": "it adds ALiBi in its own class, and asks no attention interface",
    "Mpt": "it adds ALiBi in its own class, and asks no attention interface",
    "Falcon": "it adds ALiBi, rounded to bfloat16, in its own class, and asks no attention interface",
    "Udop": "its encoder adds biases of two dimensions, which are no function of the offset",
    "Pix2Struct": "its text side is a decoder and its image side has no bias table",
}


@dataclass
class Encoder:
    """One encoder of a model.

    Attributes:
        name: path within the model; "" if it is the model itself.
        stack: the stack of layers, a PreTrainedModel.
        layers: the self-attention of each layer, in order.
        before: the attention implementation that the stack's config had before it was attached.
    """

    name: str
    stack: Any
    layers: List[Any]
    before: Any = None

    def path(self, index: int) -> str:
        """The path of a layer's block within the model."""
        return block_path(self.name, index)

    @property
    def takes_float_mask(self) -> bool:
        """Whether its layers get a float mask [batch, 1, 1, keys] that the stack makes from the 2-D one."""
        return bool(known_class(self.stack, _STACKS) == "SwitchTransformersStack")


def find_encoders(model: Any) -> List[Encoder]:
    """All encoders of a model that can be attached.

    Raises:
        Refused: the argument is not a model, or a layer's forward is not transformers' own.
    """
    from torch import nn  # noqa: PLC0415

    if not isinstance(model, nn.Module):
        raise Refused.of("model", f"a model of transformers with {ACCEPTED}", f"a {type(model).__qualname__}")
    found: List[Encoder] = []
    for name, module in model.named_modules():
        stack_class = known_class(module, _STACKS)
        if stack_class is None or module.is_decoder:
            continue
        layers = [block.layer[0].SelfAttention for block in module.block]
        for layer in layers:
            check_layer(layer, _STACKS[stack_class])
        found.append(Encoder(name, module, layers))
    return found


def local_parts(model: Any, attached: List[str]) -> List[str]:
    """Paths of the known stacks that are not attached and stay local."""
    stacks = ((name, module) for name, module in model.named_modules() if known_class(module, _STACKS) is not None)
    return [name for name, module in stacks if name not in attached]


def block_path(stack: str, index: int) -> str:
    """The path of a block, in the stack with path `stack`."""
    return f"{stack}.block.{index}".lstrip(".")


def known_class(module: Any, known: Mapping[str, Any]) -> Any:
    """The name of the first class in a module's MRO that is in `known` and from transformers; None if there is none."""
    for base in type(module).__mro__:
        if base.__name__ in known and base.__module__.startswith("transformers.models."):
            return base.__name__
    return None


def check_layer(layer: Any, expected: str) -> None:
    forwards = [vars(base)["forward"] for base in type(layer).__mro__ if base.__name__ == expected]
    own = vars(layer).get("forward", layer.forward)  # a copy of an attached layer has the class's method here
    if not forwards or getattr(own, "__func__", None) is not forwards[0] or own.__self__ is not layer:
        got = f"a {type(layer).__qualname__} with a forward of its own"
        raise Refused.of("model", f"transformers' {expected} in every layer", got)


def none_found(model: Any) -> Refused:
    """The error for a model without any part that can be attached."""
    for module in model.modules():
        for base in type(module).__mro__:
            for prefix, reason in _REASONS.items():
                if base.__module__.startswith("transformers.models.") and base.__name__.startswith(prefix):
                    return Refused.of("model", ACCEPTED, f"a {type(model).__qualname__}: {reason}")
    if any(known_class(module, _STACKS) is not None for module in model.modules()):
        return Refused.of("model", ACCEPTED, f"a {type(model).__qualname__}, which has a decoder alone")
    return Refused.of("model", ACCEPTED, f"a {type(model).__qualname__}")
