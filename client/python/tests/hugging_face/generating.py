"""Small encoder-decoders of each family whose tokens vary, and inputs for their generate()."""

from __future__ import annotations

import contextlib
import gc
import inspect
import time
from typing import Any, Callable, Iterator

import attnd
import attnd.transformers

from .libraries import torch, transformers
from .models import SIZES, padded

# A random model may say one token for ever, since that one leads to itself; so no pair is said twice.
GREEDY: dict[str, Any] = {"do_sample": False, "no_repeat_ngram_size": 2, "max_new_tokens": 10, "min_new_tokens": 10}
BEAMS: dict[str, Any] = {**GREEDY, "num_beams": 4}
# More tokens than any cache here has: all self attention stays local.
NEVER = 1 << 40
# The argument of forward and generate: transformers 5.24 has renamed it.
CACHE = (
    "cache"
    if "cache" in inspect.signature(transformers.T5ForConditionalGeneration.forward).parameters
    else "past_key_values"
)

TOKENS: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
LAYERS = 2
VARIED: dict[str, Any] = {**SIZES, **TOKENS, "num_layers": LAYERS}
# Few, so that short sequences meet the last of them too.
BUCKETS: dict[str, Any] = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}


def _t5(**options: Any) -> Any:
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**{**VARIED, **BUCKETS, **options}))


def _switch() -> Any:
    sizes = {
        "num_decoder_layers": LAYERS,
        "num_experts": 4,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
    }
    config = transformers.SwitchTransformersConfig(**{**VARIED, **BUCKETS, **sizes})
    return transformers.SwitchTransformersForConditionalGeneration(config)


def _pop2piano() -> Any:
    config = transformers.Pop2PianoConfig(**{**VARIED, **BUCKETS, "composer_vocab_size": 2})
    model = transformers.Pop2PianoForConditionalGeneration(config)
    model.generation_config.composer_to_feature_token = {"composer1": 100, "composer2": 101}
    return model


def _pix2struct() -> Any:
    sizes = {name: VARIED[name] for name in ("d_kv", "d_ff", "num_layers", "num_heads", "vocab_size")}
    text = {**sizes, **TOKENS, **BUCKETS, "hidden_size": 64, "use_cache": True}
    vision: dict[str, Any] = dict.fromkeys(("hidden_size", "d_ff"), 64)
    vision.update({"patch_embed_hidden_size": 12, "d_kv": 16, "seq_len": 64, "initializer_range": 0.5})
    vision.update({"num_hidden_layers": 2, "num_attention_heads": 4})
    config = transformers.Pix2StructConfig(text_config=text, vision_config=vision, initializer_range=0.5)
    return transformers.Pix2StructForConditionalGeneration(config)


def _udop() -> Any:
    # Its encoder wants the buckets that are usual.
    config = transformers.UdopConfig(**{**VARIED, "max_2d_position_embeddings": 128, "image_size": 32})
    return transformers.UdopForConditionalGeneration(config)


def _longt5(kind: str) -> Any:
    sizes = {"encoder_attention_type": kind, "local_radius": 7, "global_block_size": 4}
    return transformers.LongT5ForConditionalGeneration(transformers.LongT5Config(**{**VARIED, **BUCKETS, **sizes}))


# ByT5 has fewer layers in the decoder, and other sizes than heads times d_kv.
BYTES: dict[str, Any] = {
    "num_layers": 4,
    "num_decoder_layers": LAYERS,
    "num_heads": 3,
    "feed_forward_proj": "gated-gelu",
}

DECODERS: dict[str, Callable[[], Any]] = {
    "T5": _t5,
    "Flan-T5": lambda: _t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "ByT5": lambda: _t5(**BYTES, tie_word_embeddings=False),
    "mT5": lambda: transformers.MT5ForConditionalGeneration(transformers.MT5Config(**VARIED, **BUCKETS)),
    "umT5": lambda: transformers.UMT5ForConditionalGeneration(transformers.UMT5Config(**VARIED, **BUCKETS)),
    "Switch": _switch,
    "Pop2Piano": _pop2piano,
    "Pix2Struct": _pix2struct,
    "UDOP": _udop,
    "LongT5, local": lambda: _longt5("local"),
    "LongT5, global": lambda: _longt5("transient-global"),
}


def make_decoder(family: str, seed: int = 0) -> Any:
    """An encoder-decoder in float32, with random weights: bias tables that matter, and tokens that vary."""
    torch.manual_seed(seed)
    model = DECODERS[family]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name and name.endswith("weight"):
                parameter.normal_(std=2.0)
    # One that is the embedding says each token again.
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
    return model


def sources(family: str, batch: int, length: int, padding: str) -> dict[str, Any]:
    """Inputs of generate(), by their names; for padding see models.padded."""
    inputs = padded(batch, length, padding)
    ids = inputs.pop("input_ids")
    generator = torch.Generator().manual_seed(2)
    if family == "Pop2Piano":
        return {"input_features": torch.randn(batch, length, 64, generator=generator), **inputs}
    if family == "Pix2Struct":
        where = torch.arange(length).expand(batch, length)[..., None]
        values = torch.randn(batch, length, 12, generator=generator)
        return {"flattened_patches": torch.cat([1.0 + where // 8, 1.0 + where % 8, values], -1), **inputs}
    if family == "UDOP":
        corners = torch.randint(0, 60, (batch, length, 2), generator=generator)
        sizes = torch.randint(1, 40, (batch, length, 2), generator=generator)
        return {"input_ids": ids, "bbox": torch.cat([corners, corners + sizes], -1) / 100, **inputs}
    return {"input_ids": ids, **inputs}


class Watch:
    """Looks at each token what the server says of sessions, and changes nothing."""

    def __init__(self, client: attnd.Client) -> None:
        self._client = client
        self.found: dict[int, attnd.SessionInfo] = {}
        self.counts: list[int] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        infos = self._client.list_sessions()
        self.found.update((info.id, info) for info in infos)
        self.counts.append(len(infos))
        return scores

    @property
    def tokens(self) -> int:
        return len(self.counts)

    @property
    def most(self) -> int:
        """Sessions that were open at once."""
        return max(self.counts)

    @property
    def steps(self) -> int:
        """That the server has answered before the last token."""
        return sum(info.steps for info in self.found.values())

    @property
    def sources(self) -> int:
        return max((info.sources for info in self.found.values()), default=0)

    @property
    def rows(self) -> int:
        return max((info.rows for info in self.found.values()), default=0)


def generate(model: Any, inputs: dict[str, Any], seed: int = 0, **settings: Any) -> Any:
    """What model.generate gives; sampling begins with the seed."""
    torch.manual_seed(seed)
    # Pop2Piano keeps what it is given.
    before = model.generation_config.to_dict()
    try:
        return model.generate(**inputs, **settings)
    finally:
        for name, value in before.items():
            setattr(model.generation_config, name, value)


def generate_by(
    model: Any, client: attnd.Client, inputs: dict[str, Any], attach: dict[str, Any] | None = None, **settings: Any
) -> tuple[Any, Watch]:
    """The same by attnd. attach: options of attach(); without them everything is remote from the first token on."""
    watch = Watch(client)
    options = {"min_length": 0, "min_cached_tokens": 0, **(attach or {})}
    with attnd.transformers.attach(model, client, **options):
        found = generate(model, inputs, **{"logits_processor": [watch], **settings})
    return found, watch


def check_same(
    model: Any, client: attnd.Client, inputs: dict[str, Any], attach: dict[str, Any] | None = None, **settings: Any
) -> Watch:
    """That attnd gives the same tokens, and had a session.

    The same as eager: in transformers 5.15, sdpa attends to later tokens in umT5's prompts that have no mask.
    """
    with implementation(model, "eager"):
        expected = generate(model, inputs, **settings)
    found, watch = generate_by(model, client, inputs, attach, **settings)
    assert torch.equal(found, expected), (found.tolist(), expected.tolist())
    assert watch.steps > 0
    return watch


@contextlib.contextmanager
def implementation(model: Any, name: str) -> Iterator[None]:
    """Lets the model compute attention by "eager" or "sdpa", in all its parts that can."""
    parts = [module for module in model.modules() if hasattr(module, "set_attn_implementation")]
    before = [part.config._attn_implementation for part in parts]
    for part in parts:
        if name == "eager" or part._supports_sdpa:
            part.set_attn_implementation(name)
    try:
        yield
    finally:
        for part, was in zip(parts, before):
            part.set_attn_implementation(was)


def vary(tokens: Any) -> bool:
    """Whether rows differ, and none is a few tokens over and over."""
    rows = [tuple(row) for row in tokens.tolist()]
    return all(len(set(row)) > len(row) // 2 for row in rows) and len(set(rows)) > 1


def await_no_sessions(client: attnd.Client, seconds: float = 10.0) -> None:
    """That the server has no session any more, and holds no memory for calls, soon."""
    gc.collect()
    deadline = time.monotonic() + seconds
    while True:
        infos, info = client.list_sessions(), client.server_info()
        assert info.memory is not None
        if not infos and info.memory.used_bytes == 0:
            return
        assert time.monotonic() < deadline, (infos, info.memory)
        time.sleep(0.05)
