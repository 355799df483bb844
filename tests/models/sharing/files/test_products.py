"""What is left of a way of sharing once the task is fixed: as peft loads it and as merged weights, the same logits."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models.sharing_cases import LORA, TASKS, make_model, stir
from peft import PeftModel
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM
from typing_extensions import override

from mtl_opt.batch import task_rows
from mtl_opt.examples.tiny_llama import new_llama, train_tokenizer
from mtl_opt.models import (
    SHARING,
    LoraSettings,
    build_sharing,
    folder_names,
    merge,
    products_of,
    save_peft_folder,
    share,
)
from mtl_opt.models.sharing import AdapterSharing, SharedLora
from mtl_opt.models.sharing.base import SharingContext
from mtl_opt.models.sharing.parts.layers import LinearLayer

TOKENS = torch.tensor([[5, 9, 30, 41, 7, 77], [8, 8, 4, 90, 120, 3]])
FIXED = [name for name in SHARING if not isinstance(products_of(make_model(name), 0), str)]
BY_TOKEN = [name for name in SHARING if name not in FIXED]


def base_llama() -> LlamaForCausalLM:
    tokenizer = train_tokenizer(["a few words of text", "几个汉字"], vocab_size=270)
    return new_llama(tokenizer, hidden_size=16, num_layers=4, num_heads=2, seed=0).eval()


def logits(model: nn.Module, task: int | None = None) -> torch.Tensor:
    model.eval()
    with torch.no_grad(), task_rows(torch.full((len(TOKENS),), task or 0)):
        return model(input_ids=TOKENS).logits


def test_most_ways_of_sharing_leave_products_and_the_others_say_why():
    assert {"hard", "private_layers", "selective", "mtl_lora"} <= set(FIXED)
    assert {"hydra", "sparse_experts"} <= set(BY_TOKEN)
    for name in BY_TOKEN:
        assert "`" in products_of(make_model(name), 0)


@pytest.mark.parametrize(
    "name",
    [n if n in {"hard", "private_layers", "rotograd"} else pytest.param(n, marks=pytest.mark.slow) for n in FIXED],
)
def test_peft_loads_each_task_and_gives_the_same_logits(name, tmp_path):
    model = make_model(name)
    plain = logits(base_llama())
    for task in range(len(TASKS)):
        products = products_of(model, task)
        merged = merge(base_llama(), products, torch.float32)
        assert torch.allclose(logits(merged), logits(model, task), atol=1e-5)
        assert not torch.allclose(logits(merged), plain, atol=1e-2)
        if products.output is None:
            save_peft_folder(tmp_path / str(task), products, model, "base")
            loaded = PeftModel.from_pretrained(base_llama(), str(tmp_path / str(task)))
            assert torch.allclose(logits(loaded), logits(model, task), atol=1e-5)


def test_conv1d_layers_and_tied_weights_merge_too(tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=130, n_positions=16, n_embd=16, n_layer=2, n_head=2, tie_word_embeddings=True)
    base = GPT2LMHeadModel(config).eval()
    model = share(copy.deepcopy(base), build_sharing("private_layers", {}), TASKS, LORA)
    stir(model)
    for task in range(len(TASKS)):
        products = products_of(model, task)
        save_peft_folder(tmp_path / str(task), products, model, "base")
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / str(task)))
        merged = merge(copy.deepcopy(base), products, torch.float32)
        for found in (loaded, merged):
            assert torch.allclose(logits(found), logits(model, task), atol=1e-5)


class GrowingRanks(AdapterSharing):
    """Ranks that differ from layer to layer: 1, 2, 3, ... by block."""

    summary = "ranks by block"

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        return SharedLora(layer, LoraSettings(rank=1 + layer.block, alpha=5))


def test_ranks_may_differ_from_layer_to_layer(tmp_path):
    model = share(base_llama(), GrowingRanks(), TASKS, LORA)
    stir(model)
    save_peft_folder(tmp_path, products_of(model, 0), model, "base")
    loaded = PeftModel.from_pretrained(base_llama(), str(tmp_path))
    ranks = {len(p) for n, p in loaded.named_parameters() if "lora_A" in n}
    assert ranks == {1, 2, 3, 4}
    assert torch.allclose(logits(loaded.double()), logits(model.double(), 0), atol=1e-5)


class Rotation(nn.Module):
    """Turns the last hidden state, one matrix per task."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        matrices = torch.linalg.qr(torch.randn(len(TASKS), dim, dim))[0]
        self.matrices = nn.Parameter(matrices)
        self.task = 0

    @override
    def forward(self, x):
        return x @ self.matrices[self.task].T

    def output_matrix_of(self, task):
        return self.matrices[task]


class Turned(nn.Module):
    def __init__(self, norm, rotation):
        super().__init__()
        self.norm, self.rotation = norm, rotation

    @override
    def forward(self, x):
        return self.rotation(self.norm(x))


@pytest.mark.parametrize("tied", [True, False])
def test_a_matrix_before_the_output_layer_merges_into_it_and_peft_is_refused(tied, tmp_path):
    def base():
        llama = base_llama()
        if not tied:
            llama.lm_head.weight = nn.Parameter(llama.lm_head.weight.detach().clone() * 1.5)
            llama.config.tie_word_embeddings = False
        return llama

    llama = base()
    assert (llama.lm_head.weight is llama.model.embed_tokens.weight) is tied
    model = share(llama, build_sharing("private_layers", {}), TASKS, LORA)
    rotation = Rotation(16)
    model.model.norm = Turned(model.model.norm, rotation)
    stir(model)
    for task in range(len(TASKS)):
        rotation.task = task
        products = products_of(model, task)
        merge(base(), products, torch.float32).save_pretrained(tmp_path / str(task))
        loaded = LlamaForCausalLM.from_pretrained(tmp_path / str(task))
        assert torch.allclose(logits(loaded), logits(model, task), atol=1e-5)
        with pytest.raises(ValueError, match="full rank"):
            save_peft_folder(tmp_path / "peft", products, model, "base")


def test_what_only_helps_training_is_left_out_and_anything_else_is_named():
    model = make_model("private_layers")
    helper = nn.Linear(4, 2)
    model.add_module("discriminator", helper)
    assert products_of(model, 0) == "`discriminator.weight` is trained and is no adapter beside a linear layer"
    helper.training_only = True
    assert not isinstance(products_of(model, 0), str)


def test_bfloat16_weights_are_rounded_once_after_the_sum():
    model = make_model("private_layers")
    products = products_of(model, 1)
    merged = merge(base_llama(), products, torch.bfloat16)
    whole = merge(base_llama(), products, torch.float32)
    for (name, half), full in zip(merged.named_parameters(), whole.parameters(), strict=True):
        assert half.dtype == torch.bfloat16, name
        assert torch.equal(half, full.to(torch.bfloat16)), name


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=40), unique=True, max_size=6))
def test_folder_names_are_safe_and_different(tasks):
    names = list(folder_names(tasks).values())
    assert len({name.casefold() for name in names}) == len(tasks)
    for name in names:
        assert name
        assert not set(name) & set('/\\:*?"<>|\0\n')
        assert name.strip(". ") == name
        assert len(name.encode()) < 200


def test_folder_names_keep_chinese_and_part_what_cleaning_joins():
    assert folder_names(["摘要", "a/b", "a:b", "../.."]) == {"摘要": "摘要", "a/b": "a_b", "a:b": "a_b_2", "../..": "_"}
