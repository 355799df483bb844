"""Engine one_pass on other architectures: GPT-2 (Conv1D, learned positions) and BERT, in full and with LoRA."""

import pytest
import torch
from references.jacobian_reference import random_rows, reference_jacobian, token_losses
from torch.nn import functional as F

from mtl_opt.gradients import TaskGradients

TASKS = ("qa", "summary", "投诉", "anger")
MICRO_BATCHES = ((2, 0, 0, 1, 0, 2, 2), (0, 3, 0), (0, 0, 1, 1, 2, 2, 3, 3))


def make_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 61, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **dropout, tie_word_embeddings=False, use_cache=False))


def make_gpt2_lora():
    from peft import LoraConfig, get_peft_model

    target = ["c_attn", "c_proj", "c_fc"]
    return get_peft_model(
        make_gpt2(), LoraConfig(r=4, target_modules=target, fan_in_fan_out=True, init_lora_weights=False)
    )


def plain_class_losses(model, rows, num_tasks):
    """Classify rows with the positions that BERT numbers itself, as `[1, seq]`."""
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = rows.input_ids[:, 0] % 3
    sums = torch.zeros(num_tasks, dtype=logits.dtype).index_add(
        0, rows.ids, F.cross_entropy(logits, targets, reduction="none")
    )
    counts = torch.bincount(rows.ids, minlength=num_tasks)
    return sums / counts.clamp(min=1), counts


@pytest.mark.parametrize("kind", ["gpt2_full", "gpt2_lora", "bert_full"])
def test_rows_equal_per_task(kind, make_bert, take_rows, row_error):
    makers = {"gpt2_full": make_gpt2, "gpt2_lora": make_gpt2_lora, "bert_full": lambda: make_bert(lora=False)}
    model, losses_of = makers[kind]().double(), plain_class_losses if kind == "bert_full" else token_losses
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    grads = TaskGradients(model, TASKS, "auto", verify=True)
    assert grads.engine.name == "one_pass"
    found = take_rows(grads, model, losses_of, batches)
    wanted = take_rows(TaskGradients(model, TASKS, "per_task"), model, losses_of, batches)
    assert row_error(found, wanted) < 1e-12


def test_the_rows_of_learned_positions_are_not_zero_and_equal_plain_backwards(take_rows, by_name, row_error):
    model, rows = make_gpt2(), random_rows((0, 1, 1, 0, 1))
    grads = TaskGradients(model, TASKS[:2], "one_pass")
    found = take_rows(grads, model, token_losses, [rows])
    wanted = by_name(grads, reference_jacobian(model, token_losses, rows, 2))
    assert row_error(found, wanted) < 1e-5
    positions = found[:, grads.buffer.tensors["transformer.wpe.weight"]]
    assert float(positions.norm(dim=1).min()) > 0


def test_bert_rows_agree_under_bfloat16_autocast(make_bert, row_error):
    model, rows, found = make_bert(lora=False), random_rows((0, 1, 1, 0, 1)), {}
    for engine in ("one_pass", "per_task"):
        grads = TaskGradients(model, TASKS[:2], engine)
        with grads.rows(rows.ids):
            with torch.autocast("cpu", torch.bfloat16):
                losses, counts = plain_class_losses(model, rows, 2)
            grads.backward(losses.float(), counts)
        found[engine] = grads.jacobian
    # Both round every product to the 8 bits of bfloat16 (2^-9 each), per task or per batch, over two layers.
    assert row_error(found["one_pass"], found["per_task"]) < 0.02
