"""Private adapters on the attention of chosen blocks, found by name in several architectures."""

import pytest
import torch
from models.sharing_cases import LORA, TASKS
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from mtl_opt import task_rows
from mtl_opt.errors import InputError
from mtl_opt.models import build_sharing, share
from mtl_opt.models.sharing import PrivateLora, SharedLora
from mtl_opt.models.sharing.parts.blocks import attention_layers

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


MODELS = {
    "gpt2": (
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32)),
        {"attn.c_attn", "attn.c_proj"},
    ),
    "bert": (
        lambda: BertModel(BertConfig(**SIZES)),
        {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"},
    ),
    "qwen2": (
        lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=1)),
        {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"},
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_attention_is_found_by_name_and_made_private(kind):
    build, wanted = MODELS[kind]
    model = build()
    assert {layer.path.split(".1.")[1] for layer in attention_layers(model, [1])} == wanted
    share(model, build_sharing("task_attention", {"layers": [1]}), TASKS, LORA)
    kinds = {name.removesuffix(".adapter"): type(m) for name, m in model.named_modules() if name.endswith(".adapter")}
    for name, cls in kinds.items():
        private = ".1." in name and name.split(".1.")[1] in wanted
        assert cls is (PrivateLora if private else SharedLora), name
    ids = torch.tensor([2, 0, 1])
    tokens = torch.randint(0, 64, (3, 5), generator=torch.Generator().manual_seed(0))
    with task_rows(ids):
        assert model(input_ids=tokens)[0].isfinite().all()


def test_attention_is_private_even_where_other_layers_are_adapted():
    from dataclasses import replace

    model = MODELS["qwen2"][0]()
    share(model, build_sharing("task_attention", {"layers": 1}), TASKS, replace(LORA, target=("down_proj",)))
    found = {n.split("layers.")[1] for n, m in model.named_modules() if isinstance(m, PrivateLora)}
    assert found == {f"1.self_attn.{p}_proj.adapter" for p in "qkvo"}
    assert sum(isinstance(m, SharedLora) for m in model.modules()) == 2


def test_an_architecture_without_attention_is_refused():
    model = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4))
    with pytest.raises(
        InputError, match=r"no attention in block 1 of MambaForCausalLM.*not supported \(linear layers there: dt_proj"
    ):
        share(model, build_sharing("task_attention", {}), TASKS, LORA)


def test_recurrent_blocks_have_no_attention_and_the_others_are_named():
    def build():
        config = RecurrentGemmaConfig(**SIZES, num_key_value_heads=1, lru_width=16, attention_window_size=8)
        config.num_hidden_layers = 6
        return RecurrentGemmaForCausalLM(config)

    found = attention_layers(build(), [2, 5])
    assert {layer.path.split("layers.")[1] for layer in found} == {
        f"{block}.temporal_block.{name}_proj" for block in (2, 5) for name in "qkvo"
    }
    with pytest.raises(InputError, match=r"block 4 of RecurrentGemmaForCausalLM has no attention; .*blocks 2, 5\.$"):
        share(build(), build_sharing("task_attention", {"layers": 2}), TASKS, LORA)
