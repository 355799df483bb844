"""LoRA by peft: target layers, and adapters that begin at the base model."""

from pathlib import Path

import pytest
import torch
from tiny_run import build_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from mtl_opt.errors import InputError
from mtl_opt.models import LoraSettings, load_model

LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


IDS = torch.tensor([[1, 5, 9, 30]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("model"))


def trained_layers(model: nn.Module) -> set[str]:
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all("lora_" in name for name in names)
    return {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names}


def test_all_means_every_linear_layer_but_the_output(folder):
    model = load_model(folder, lora=LoraSettings(rank=3, alpha=12))
    assert trained_layers(model) == LINEAR
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 12, 0.0)


def test_a_list_names_the_layers(folder):
    assert trained_layers(load_model(folder, lora=LoraSettings(target=("q_proj", "down_proj")))) == {
        "q_proj",
        "down_proj",
    }


@pytest.mark.parametrize("targets", [("q_prj",), ("q_proj", "v_prj"), ("all", "q_proj")])
def test_a_wrong_layer_is_an_error_with_the_near_name(folder, targets):
    with pytest.raises(InputError, match="no linear layer") as error:
        load_model(folder, lora=LoraSettings(target=targets))
    if "all" not in targets:
        assert "Did you mean `" in str(error.value)
    assert "down_proj, gate_proj" in str(error.value)


def test_the_layers_of_gpt2_which_are_no_nn_linear_can_be_named(tmp_path: Path):
    GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16)).save_pretrained(tmp_path)
    assert trained_layers(load_model(str(tmp_path), lora=LoraSettings(target=("c_attn",)))) == {"c_attn"}


def test_fresh_adapters_leave_the_model_as_it_was(folder):
    model, base = load_model(folder, lora=LoraSettings()), load_model(folder, lora=None)
    assert torch.equal(model(IDS).logits, base(IDS).logits)


def test_rslora_scales_by_the_root_of_the_rank_and_dora_learns_magnitudes(folder):
    layer = load_model(folder, lora=LoraSettings(rank=4, alpha=6, rslora=True)).base_model.model.model.layers[0]
    assert layer.self_attn.q_proj.scaling["default"] == 3
    names = [name for name, p in load_model(folder, lora=LoraSettings(dora=True)).named_parameters() if p.requires_grad]
    assert any("lora_magnitude_vector" in name for name in names)
