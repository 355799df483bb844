"""Packed rows give the losses and the task gradients of padded rows; models that mix them are refused."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data import EncodedRow, collate, collate_packed
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients
from mtl_opt.models import check_packing, task_losses

TASKS = ("qa", "summary", "投诉", "anger")
SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
ROPE = {"num_key_value_heads": 2, "max_position_embeddings": 64}


def make(kind: str, attention: str = "sdpa", lora: bool = True) -> nn.Module:
    torch.manual_seed(0)
    extra = {"attn_implementation": attention}
    if kind == "gpt2":
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        sizes = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
        model = GPT2LMHeadModel(GPT2Config(**sizes, **dropout, **extra, tie_word_embeddings=False))
    elif kind == "mistral":  # a window that is shorter than the rows
        model = MistralForCausalLM(MistralConfig(**SIZES, **ROPE, **extra, sliding_window=4))
    else:
        config, cls = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen": (Qwen2Config, Qwen2ForCausalLM)}[kind]
        model = cls(config(**SIZES, **ROPE, **extra))
    for parameter in model.parameters():  # far from nothing, so that a row that sees another one shows
        nn.init.normal_(parameter, std=0.3)
    if not lora:
        return model.double().train()
    settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, fan_in_fan_out=kind == "gpt2")
    return get_peft_model(model, settings).double().train()


def ragged_rows():
    """Rows of 2 to 15 tokens; the third task is absent."""
    generator = torch.Generator().manual_seed(1)
    lengths = [[15, 3, 4], [2, 5, 2, 3, 4], [], [7, 4]]

    def row(length: int) -> EncodedRow:
        ids = torch.randint(1, 61, (length,), generator=generator).tolist()
        return EncodedRow(ids, [IGNORE_INDEX] * (length // 3) + ids[length // 3 :], shortened=False)

    return [[row(length) for length in task] for task in lengths]


def losses_and_rows(model, batch, engine):
    grads = TaskGradients(model, TASKS, engine, verify=True)
    with grads.rows(batch.task_ids):
        losses, counts = task_losses(model, batch, len(TASKS))
        grads.backward(losses, counts)
    return losses.detach(), counts, grads.jacobian


@pytest.mark.parametrize("engine", ["one_pass", "per_task"])
@pytest.mark.parametrize(
    ("kind", "attention", "lora"),
    [
        ("llama", "sdpa", True),
        ("llama", "eager", True),
        ("llama", "sdpa", False),
        ("mistral", "sdpa", True),
        ("qwen", "sdpa", True),
        ("gpt2", "sdpa", True),
        ("gpt2", "eager", False),
    ],
)
def test_packed_rows_give_the_losses_and_gradients_of_padded_ones(kind, attention, lora, engine):
    model, rows = make(kind, attention, lora), ragged_rows()
    check_packing(model)
    packed, padded = collate_packed(rows, 0, widest=20), collate(rows, 0)
    assert packed.input_ids.numel() < 0.5 * padded.input_ids.numel()
    found, wanted = losses_and_rows(model, packed, engine), losses_and_rows(model, padded, "per_task")
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-10, atol=1e-10)
    assert torch.equal(found[1], wanted[1])
    torch.testing.assert_close(found[2], wanted[2], rtol=1e-10, atol=1e-10)
    assert found[2][[0, 1, 3]].norm(dim=1).min() > 0
    assert found[2][2].count_nonzero() == 0


def test_accumulated_packs_equal_one_padded_batch():
    model, rows = make("llama"), ragged_rows()
    grads = TaskGradients(model, TASKS, "one_pass")
    for part in (slice(0, 2), slice(2, None)):
        batch = collate_packed([own[part] for own in rows], 0)
        with grads.rows(batch.task_ids):
            grads.backward(*task_losses(model, batch, len(TASKS)))
    wanted = losses_and_rows(model, collate(rows, 0), "per_task")[2]
    torch.testing.assert_close(grads.jacobian, wanted, rtol=1e-10, atol=1e-10)


def test_a_row_does_not_see_its_neighbours_or_the_padding():
    model, rows = make("llama"), ragged_rows()
    before, _ = task_losses(model, collate_packed(rows, 0, widest=20), len(TASKS))
    rows[1] = [EncodedRow([60 - t for t in row.input_ids], row.labels, row.shortened) for row in rows[1]]
    after, _ = task_losses(model, collate_packed(rows, 33, widest=20), len(TASKS))
    assert torch.equal(before[[0, 3]], after[[0, 3]])
    assert before[1] != after[1]


def test_a_recurrent_model_is_refused_by_name():
    model = MambaForCausalLM(MambaConfig(vocab_size=61, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(InputError, match=r"`packing: true`: MambaForCausalLM .*"):
        check_packing(model)


def test_a_model_that_lets_packed_rows_see_each_other_is_refused():
    class Leaking(nn.Module):
        """Knows nothing of positions: every token sees the mean of all before it."""

        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(61, 8)

        def get_input_embeddings(self):
            return self.embed

        def forward(self, input_ids, position_ids=None, use_cache=None):  # noqa: ARG002
            hidden = self.embed(input_ids).cumsum(1)
            return type("Output", (), {"logits": hidden @ self.embed.weight.T})

    model = Leaking().train()
    with pytest.raises(InputError, match=r"Leaking does not keep packed rows apart .*use `packing: false`"):
        check_packing(model)
    assert model.training
