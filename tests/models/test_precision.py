"""A quantised base, activation checkpointing and torch.compile, on real models of transformers and peft."""

import pytest
import torch
from tiny_run import build_model

from mtl_opt.errors import InputError
from mtl_opt.models import (
    LoraSettings,
    QuantizationSettings,
    enable_checkpointing,
    load_model,
    precision,
)

QUANTIZATIONS = [
    QuantizationSettings(4),
    QuantizationSettings(4, "fp4", double=False),
    QuantizationSettings(8),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=["nf4", "fp4", "int8"])
def test_the_base_is_quantised_and_the_adapters_are_not(folder, quantization):
    import bitsandbytes

    model = load_model(folder, lora=LoraSettings(), quantization=quantization)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer
    if quantization.bit == 8:
        assert isinstance(layer, bitsandbytes.nn.Linear8bitLt)
        assert layer.weight.dtype == torch.int8
    else:
        assert isinstance(layer, bitsandbytes.nn.Linear4bit)
        assert layer.weight.quant_type == quantization.kind
        assert layer.weight.quant_state.nested is quantization.double
        assert layer.compute_dtype == torch.float32
    trained = {name: p.dtype for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name and dtype == torch.float32 for name, dtype in trained.items())


def test_fewer_bits_store_the_weights_less_exactly(folder):
    exact = load_model(folder, lora=None).model.layers[0].self_attn.q_proj.weight.detach()
    errors = []
    for quantization in (QuantizationSettings(8), QuantizationSettings(4), QuantizationSettings(4, "fp4")):
        model = load_model(folder, lora=LoraSettings(), quantization=quantization)
        layer = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer
        errors.append(float((layer(torch.eye(32)).detach().T - exact).norm() / exact.norm()))
    assert 0 < errors[0] < 0.01 < errors[1] < errors[2] < 0.25


def test_adapters_on_a_quantised_base_are_saved_and_loaded_again(folder, tmp_path):
    quantization = QuantizationSettings(4)
    model = load_model(folder, lora=LoraSettings(), quantization=quantization)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    model.save_pretrained(tmp_path)
    again = load_model(folder, lora=LoraSettings(), quantization=quantization, trained=tmp_path)
    ids = torch.arange(3, 43)[None]
    assert torch.equal(model.eval()(ids).logits, again.eval()(ids).logits)


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=["nf4", "fp4", "int8"])
def test_an_evaluation_leaves_the_quantised_base_as_it_was(folder, quantization):
    model = load_model(folder, lora=LoraSettings(), quantization=quantization)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer
    ids, before = torch.arange(3, 43)[None], layer.weight.detach().clone()
    trained = model.train()(ids).logits
    with torch.no_grad():
        evaluated = model.eval()(ids).logits
    assert torch.equal(layer.weight, before)
    if quantization.bit == 4:  # with 8 bits the products themselves are rounded, in training otherwise
        assert torch.equal(evaluated, trained)
    assert torch.equal(model.train()(ids).logits, trained)


def test_without_bitsandbytes_one_sentence_says_so(folder, monkeypatch):
    monkeypatch.setattr(precision, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"`quantization_bit: 4` needs the package bitsandbytes, which is not"):
        load_model(folder, lora=LoraSettings(), quantization=QuantizationSettings(4))


@pytest.mark.parametrize("lora", [LoraSettings(), None], ids=["lora", "full"])
def test_checkpointing_keeps_layer_inputs_only_and_gives_the_same_gradient(folder, lora):
    ids, kept, gradients = torch.arange(3, 43).view(2, 20), [], []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = load_model(folder, lora=lora)
        if checkpointed:
            enable_checkpointing(model)
        model.train()
        saved = []

        def pack(x, saved=saved):
            saved.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        kept.append(sum(saved))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert kept[1] < kept[0] / 2
    assert torch.equal(gradients[0], gradients[1])


def test_a_model_that_cannot_checkpoint_says_so():
    class Refusing:
        def activation_checkpointing_enable(self, _):
            raise ValueError("Mine does not support gradient checkpointing.")

    with pytest.raises(InputError, match=r"`gradient_checkpointing`: Mine does not support gradient checkpointing\."):
        enable_checkpointing(Refusing())
