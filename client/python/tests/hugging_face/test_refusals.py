"""What cannot be computed exactly is refused with the reason."""

from __future__ import annotations

import re
import sys
import types
from typing import Any, Iterator

import pytest

import attnd
import attnd.transformers
from attnd.transformers import Refused

from .libraries import torch, transformers
from .models import SIZES, by_eager, largest, make, padded, run


@pytest.fixture(params=[0, 1000], ids=["remote", "short"])
def attached(request: Any, client: attnd.Client) -> Iterator[Any]:
    """Whether a sequence is short or long makes no difference to what is refused."""
    model = make("T5")
    with attnd.transformers.attach(model, client, min_length=request.param):
        yield model


INPUTS = {"input_ids": torch.randint(2, 128, (2, 20))}


def test_gradients(attached: Any) -> None:
    with pytest.raises(Refused, match="inference_mode") as refused:
        attached(**INPUTS)
    assert refused.value.got == "a forward pass that records gradients"
    attached.train()
    for module in attached.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    with pytest.raises(Refused, match="training mode, with gradients"):
        attached(**INPUTS)


def test_gradients_of_the_inputs_alone(attached: Any) -> None:
    attached.requires_grad_(False)
    assert attached(**INPUTS).last_hidden_state.shape == (2, 20, 64)
    with pytest.raises(Refused, match="records gradients"):
        attached(inputs_embeds=torch.randn(2, 20, 64, requires_grad=True))


def test_dropout(attached: Any) -> None:
    attached.train()
    with torch.no_grad(), pytest.raises(Refused, match=r"a dropout of 0\.1"):
        attached(**INPUTS)


def test_training_mode_without_dropout_and_gradients(attached: Any) -> None:
    expected = by_eager(attached, INPUTS)
    attached.train()
    for module in attached.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    assert largest(run(attached, INPUTS) - expected) < 1e-4


@pytest.mark.parametrize("shape", [(2, 1, 20, 20), (2, 4, 20, 20), (2, 1, 1, 20)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_of_four_dimensions(attached: Any, shape: Any, dtype: Any) -> None:
    mask = torch.ones(shape).to(dtype)
    with torch.no_grad(), pytest.raises(Refused) as refused:
        attached(**INPUTS, attention_mask=mask)
    assert refused.value.field == "attention_mask"
    assert refused.value.got == f"one of {list(shape)}, which says for each query what it sees"


def test_masks_of_another_length(attached: Any) -> None:
    with torch.no_grad(), pytest.raises(Refused):
        attached(**INPUTS, attention_mask=torch.ones(2, 25).tril())


@pytest.mark.parametrize("family", ["T5", "umT5", "Switch", "T5 with decoder", "Pop2Piano"])
def test_output_attentions(client: attnd.Client, family: str) -> None:
    model = make(family)
    with attnd.transformers.attach(model, client, min_length=0), torch.no_grad():
        with pytest.raises(Refused) as refused:
            model.encoder(**INPUTS, output_attentions=True)
        assert refused.value.field == "output_attentions"
        if hasattr(model, "decoder"):
            with pytest.raises(Refused):
                model(**INPUTS, decoder_input_ids=torch.ones(2, 1, dtype=torch.long), output_attentions=True)
        with pytest.raises(ValueError, match="output_attentions"):
            model.encoder.config.output_attentions = True
    model.encoder.set_attn_implementation("eager")
    model.encoder.config.output_attentions = True
    with pytest.raises(Refused, match="output_attentions"):
        attnd.transformers.attach(model, client)


def test_switch_with_a_mask_that_is_no_mask(client: attnd.Client) -> None:
    model = make("Switch")
    with attnd.transformers.attach(model, client, min_length=0), torch.no_grad():
        model(**INPUTS, attention_mask=torch.ones(2, 20))
        with pytest.raises(Refused, match="ones and zeros"):
            model(**INPUTS, attention_mask=torch.full((2, 20), 0.5))


def test_another_bias(attached: Any) -> None:
    attention = attached.encoder.block[1].layer[0].SelfAttention
    with torch.no_grad(), pytest.raises(Refused, match="position_bias"):
        attention(torch.randn(1, 20, 64), position_bias=torch.zeros(1, 4, 20, 20))


def test_a_bias_that_something_copied_between_layers(attached: Any) -> None:
    def copied(module: Any, arguments: Any, output: Any) -> Any:
        return output[0], output[1].clone(), *output[2:]

    attached.encoder.block[0].register_forward_hook(copied)
    with torch.no_grad(), pytest.raises(Refused, match="or a copy"):
        attached(**INPUTS)


def test_models_on_another_device(attached: Any, client: attnd.Client) -> None:
    attached.to("meta")
    with torch.no_grad(), pytest.raises(Refused, match=r"CPU.*meta"):
        attached(input_ids=INPUTS["input_ids"].to("meta"))
    with pytest.raises(Refused, match=r"CPU.*meta"):
        attnd.transformers.attach(make("T5").to("meta"), client)
    model = make("T5")
    model.encoder.block[2].to("meta")
    with pytest.raises(Refused, match=r"CPU.*meta"):
        attnd.transformers.attach(model, client)


def test_other_dtypes(client: attnd.Client) -> None:
    with pytest.raises(Refused, match="float64"):
        attnd.transformers.attach(make("T5").double(), client)
    model = make("T5")
    with attnd.transformers.attach(model, client, min_length=0), pytest.raises(attnd.InvalidArgument, match="float64"):
        run(model.double(), INPUTS)


def test_compiling(client: attnd.Client) -> None:
    model = make("T5")
    inputs = padded(2, 40, "left")
    expected = by_eager(model, inputs)
    with attnd.transformers.attach(model, client, min_length=0), torch.no_grad():
        torch._dynamo.reset()
        whole = torch.compile(model, backend="eager", fullgraph=True)
        with pytest.raises(Exception, match="attnd computes the attention in another process"):
            whole(**inputs)
        torch._dynamo.reset()
        found = torch.compile(model, backend="eager")(**inputs).last_hidden_state
        where = inputs["attention_mask"].bool()
        assert largest((found - expected)[where]) < 1e-4
    torch._dynamo.reset()


def small(name: str, **sizes: Any) -> Any:
    return getattr(transformers, name)(**sizes)


TINY = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
OTHERS = {
    "LongT5EncoderModel": (lambda: small("LongT5Config", **SIZES), "windows"),
    "MPNetModel": (lambda: small("MPNetConfig", **TINY, intermediate_size=32), "its own class"),
    "BloomModel": (lambda: small("BloomConfig", vocab_size=32, hidden_size=32, n_layer=1, n_head=2), "ALiBi"),
    "MptModel": (lambda: small("MptConfig", vocab_size=32, d_model=32, n_layers=1, n_heads=2), "ALiBi"),
    "FalconModel": (lambda: small("FalconConfig", **TINY, alibi=True), "bfloat16"),
    "BertModel": (lambda: small("BertConfig", **TINY, intermediate_size=32), "BertModel"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_families(client: attnd.Client, name: str) -> None:
    config, reason = OTHERS[name]
    model = getattr(transformers, name)(config())
    with pytest.raises(Refused, match=reason) as refused:
        attnd.transformers.attach(model, client)
    assert name in refused.value.got
    assert "T5, mT5, umT5, Switch, Pop2Piano" in refused.value.expected


def test_a_decoder_alone(client: attnd.Client) -> None:
    decoder = make("T5 with decoder").decoder
    with pytest.raises(Refused, match="a decoder alone"):
        attnd.transformers.attach(decoder, client, decoder=False)
    with attnd.transformers.attach(decoder, client, min_cached_tokens=0) as handle:
        assert (handle.layers, handle.decoder_layers) == (0, 3)


@pytest.mark.parametrize("what", [None, "t5-small", torch.nn.Linear(2, 2)])
def test_what_is_no_model(client: attnd.Client, what: Any) -> None:
    with pytest.raises(Refused, match="model"):
        attnd.transformers.attach(what, client)


def test_a_forward_of_the_callers(client: attnd.Client) -> None:
    model = make("T5")
    attention = model.encoder.block[1].layer[0].SelfAttention
    attention.forward = lambda *arguments, **others: type(attention).forward(attention, *arguments, **others)
    with pytest.raises(Refused, match="a forward of its own"):
        attnd.transformers.attach(model, client)


def test_targets(client: attnd.Client) -> None:
    model = make("T5")
    with pytest.raises(attnd.InvalidArgument, match="target"):
        attnd.transformers.attach(model, 5)
    with pytest.raises(attnd.Unavailable):
        attnd.transformers.attach(model, "unix:/nowhere/attnd.sock", timeout=0.5)
    assert not vars(model.encoder.block[0].layer[0].SelfAttention).get("_attnd")
    with attnd.transformers.attach(model, client, min_length=0):
        run(model, INPUTS)


@pytest.mark.parametrize("version", ["5.14.2", "4.57.0", "5.0.0rc3"])
def test_an_older_transformers(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    model = make("T5")
    older = types.ModuleType("transformers")
    monkeypatch.setattr(older, "__version__", version, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", older)
    with pytest.raises(ImportError, match=rf"5\.15 or newer, got {re.escape(version)}"):
        attnd.transformers.attach(model, "unix:/nowhere")
