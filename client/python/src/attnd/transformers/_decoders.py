"""Finds the decoders of a model that can be attached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple

from attnd.transformers._families import block_path, check_layer, known_class


class _Shape(NamedTuple):
    """How a family's decoder is built.

    Attributes:
        attention: class of its attention layers.
        blocks: attribute of the stack with its blocks.
        self_path, cross_path: paths of the attention layers within a block.
        projections: attributes of an attention layer: the projections to q, k, v and the output.
        mask, source: names of the forward's arguments for the mask and the encoder's output.
        gives_bias: whether an attention layer's forward returns its bias between output and weights.
    """

    attention: str
    blocks: str = "block"
    self_path: str = "layer.0.SelfAttention"
    cross_path: str = "layer.1.EncDecAttention"
    projections: tuple[str, str, str, str] = ("q", "k", "v", "o")
    mask: str = "mask"
    source: str = "key_value_states"
    gives_bias: bool = True


# By the class of the stack of layers.
_SHAPES: Dict[str, _Shape] = {
    "T5Stack": _Shape("T5Attention"),
    "MT5Stack": _Shape("MT5Attention"),
    "UMT5Stack": _Shape("UMT5Attention", mask="attention_mask", source="encoder_hidden_states", gives_bias=False),
    "SwitchTransformersStack": _Shape("SwitchTransformersAttention"),
    "Pop2PianoStack": _Shape("Pop2PianoAttention"),
    "LongT5Stack": _Shape("LongT5Attention"),
    "UdopStack": _Shape("UdopAttention"),
    "Pix2StructTextModel": _Shape(
        "Pix2StructTextAttention",
        blocks="layer",
        self_path="self_attention.attention",
        cross_path="encoder_decoder_attention.attention",
        projections=("query", "key", "value", "output"),
    ),
}


class AttentionLayer:
    """One attention layer of a decoder.

    Attributes:
        module: transformers' layer.
        index: of its block.
        heads, head_dim: sizes.
        mask, source, gives_bias: as in `_Shape`.
    """

    def __init__(self, module: Any, index: int, shape: _Shape) -> None:
        self.module = module
        self.index = index
        self.heads = int(module.n_heads)
        self.head_dim = int(module.key_value_proj_dim)
        self.mask = shape.mask
        self.source = shape.source
        self.gives_bias = shape.gives_bias
        self._names = shape.projections

    def query(self, states: Any) -> Any:
        """Projects hidden states to queries, [rows, tokens, heads, head_dim]."""
        return self._split(getattr(self.module, self._names[0])(states))

    def key(self, states: Any) -> Any:
        """As query, for keys."""
        return self._split(getattr(self.module, self._names[1])(states))

    def value(self, states: Any) -> Any:
        """As query, for values."""
        return self._split(getattr(self.module, self._names[2])(states))

    def output(self, attended: Any) -> Any:
        """Projects the attention's output [rows, tokens, heads, head_dim] to hidden states."""
        return getattr(self.module, self._names[3])(attended.reshape(*attended.shape[:2], -1))

    def result(self, output: Any) -> Any:
        """The return value of the layer's forward: the output, without bias and weights."""
        return (output, None, None) if self.gives_bias else (output, None)

    def _split(self, states: Any) -> Any:
        return states.view(*states.shape[:2], self.heads, self.head_dim)


@dataclass
class Decoder:
    """One decoder of a model.

    Attributes:
        name: path within the model; "" if it is the model itself.
        stack: the stack of layers, a PreTrainedModel.
        self_layers, cross_layers: the attention layers of each block, in order.
        biased: the self layers that have a bias table: the first, or all.
    """

    name: str
    stack: Any
    self_layers: List[AttentionLayer]
    cross_layers: List[AttentionLayer]

    @property
    def biased(self) -> List[AttentionLayer]:
        return [layer for layer in self.self_layers if layer.module.has_relative_attention_bias]

    def path(self, index: int) -> str:
        """The path of a block within the model."""
        return block_path(self.name, index)


def find_decoders(model: Any) -> List[Decoder]:
    """All decoders of a model that can be attached.

    Raises:
        Refused: a layer's forward is not transformers' own.
    """
    found: List[Decoder] = []
    for name, stack in model.named_modules():
        stack_class = known_class(stack, _SHAPES)
        if stack_class is None or not stack.config.is_decoder:
            continue
        shape = _SHAPES[stack_class]
        blocks = list(getattr(stack, shape.blocks))
        decoder = Decoder(
            name,
            stack,
            [AttentionLayer(block.get_submodule(shape.self_path), i, shape) for i, block in enumerate(blocks)],
            [AttentionLayer(block.get_submodule(shape.cross_path), i, shape) for i, block in enumerate(blocks)],
        )
        for layer in decoder.self_layers + decoder.cross_layers:
            check_layer(layer.module, shape.attention)
        # A table in the first layer only is shared by all layers. A decoder without a table cannot be attached.
        if decoder.self_layers and decoder.self_layers[0].module.has_relative_attention_bias:
            found.append(decoder)
    return found
