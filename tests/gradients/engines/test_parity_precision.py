"""Engine one_pass gives the rows of per_task in the setups people train in: QLoRA, checkpointing, dropout, bf16."""

import pytest
import torch
from references.jacobian_reference import join, random_rows, token_losses
from torch import nn

from mtl_opt.gradients import TaskGradients
from mtl_opt.models import LoraSettings, QuantizationSettings, enable_checkpointing, load_model

TASKS = ("qa", "summary", "投诉", "anger")
# Ragged: rows of very different length, a task with one row, tasks absent from a micro-batch.
MICRO_BATCHES = ((2, 0, 0, 1, 0, 2, 2), (0, 3, 0), (0, 0, 1, 1, 2, 2, 3, 3))
BASES = {"float": None, "nf4": QuantizationSettings(4), "fp4": QuantizationSettings(4, "fp4", double=False)}
BASES["int8"] = QuantizationSettings(8)


@pytest.fixture
def make_model(make_llama, tmp_path):
    """Load a Llama with adapters on a base as it is stored in training, both factors random."""

    def make(base: str = "float", dropout: float = 0.0, checkpointed: bool = False) -> nn.Module:
        torch.manual_seed(0)
        make_llama(lora=False).save_pretrained(tmp_path / "base")
        lora = LoraSettings(rank=4, alpha=8, dropout=dropout)
        model = load_model(str(tmp_path / "base"), lora=lora, quantization=BASES[base])
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
        if checkpointed:
            enable_checkpointing(model)
        return model.train()

    return make


def rows_of(engine, model, batches, take_rows, **arguments):
    torch.manual_seed(11)  # the same dropout masks for every engine
    return take_rows(TaskGradients(model, TASKS, engine, **arguments), model, token_losses, batches)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("base", ["float", "nf4", "fp4"])
def test_rows_equal_per_task(base, checkpointed, dropout, make_model, take_rows, row_error):
    model = make_model(base, dropout, checkpointed)
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    found = rows_of("one_pass", model, batches, take_rows, verify=True)
    wanted = rows_of("per_task", model, batches, take_rows)
    # float32 throughout: a 4-bit base is dequantised to the same float32 weights by both engines.
    assert row_error(found, wanted) < 2e-6


def test_rows_equal_per_task_on_an_8_bit_base(make_model, take_rows, row_error):
    model = make_model("int8", 0.3)
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    found, wanted = (rows_of(engine, model, batches, take_rows) for engine in ("one_pass", "per_task"))
    # bitsandbytes multiplies the gradient in float16 (11 bits); one_pass sends all tasks' gradients through at once,
    # each in rows of its own, so that no task's rounding depends on another's.
    assert row_error(found, wanted) < 2e-3


@pytest.mark.parametrize("base", ["float", "nf4"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_checkpointing_and_dropout_give_the_rows_of_the_same_masks(base, checkpointed, make_model, take_rows, by_name):
    """T plain backwards of the one forward, without any engine, are the oracle."""
    model, rows = make_model(base, 0.4, checkpointed), random_rows((2, 0, 0, 1, 0, 2))
    grads = TaskGradients(model, TASKS[:3], "one_pass")
    torch.manual_seed(11)
    found = take_rows(grads, model, token_losses, [rows])

    torch.manual_seed(11)
    losses, _ = token_losses(model, rows, 3)
    wanted = {name: [] for name in grads.buffer.parameters}
    for task in range(3):
        model.zero_grad()
        losses[task].backward(retain_graph=True)
        for name, parameter in grads.buffer.parameters.items():
            wanted[name].append(parameter.grad)
    model.zero_grad()
    exact = by_name(grads, {name: torch.stack(parts) for name, parts in wanted.items()})
    assert torch.allclose(found, exact, rtol=1e-4, atol=1e-6)
    torch.manual_seed(12)
    other = take_rows(TaskGradients(model, TASKS[:3], "one_pass"), model, token_losses, [rows])
    assert not torch.allclose(other, exact, rtol=0.1, atol=1e-3)  # the masks matter


@pytest.mark.parametrize("base", ["float", "nf4"])
def test_micro_batches_equal_one_large_batch_with_tokens_counted_per_task(base, make_model, take_rows, row_error):
    model = make_model(base)
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    found = rows_of("one_pass", model, batches, take_rows)
    assert row_error(found, rows_of("one_pass", model, [join(batches)], take_rows)) < 2e-6
    assert row_error(found, rows_of("per_task", model, [join(batches)], take_rows)) < 2e-6


@pytest.mark.parametrize("base", ["nf4", "int8"])
def test_two_forwards_in_one_loss_are_both_differentiated(base, make_model, take_rows, row_error):
    model, rows, other = make_model(base), random_rows((1, 0, 1)), random_rows((1, 0, 1))

    def both(of, first, num_tasks):
        losses, counts = token_losses(of, first, num_tasks)
        return losses * token_losses(of, other, num_tasks)[0], counts

    found, wanted = (
        take_rows(TaskGradients(model, TASKS[:2], engine), model, both, [rows]) for engine in ("one_pass", "per_task")
    )
    assert row_error(found, wanted) < (2e-6 if base == "nf4" else 2e-3)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("base", ["float", "nf4"])
def test_rows_agree_under_bfloat16_autocast(base, checkpointed, make_model, row_error):
    model, rows, found = make_model(base, 0.2, checkpointed), random_rows((0, 1, 1, 2, 0, 1)), {}
    for engine in ("one_pass", "per_task"):
        torch.manual_seed(11)
        grads = TaskGradients(model, TASKS[:3], engine)
        with grads.rows(rows.ids):
            with torch.autocast("cpu", torch.bfloat16):
                losses, counts = token_losses(model, rows, 3)
            grads.backward(losses, counts)
        found[engine] = grads.jacobian
    # bfloat16 keeps 8 bits: a product rounds by up to 2^-9 = 0.002, and the engines round at different places (one
    # sums a task's rows before, the other after rounding), once per layer and product on the way: ten times that.
    assert row_error(found["one_pass"], found["per_task"]) < 0.02
    assert row_error(found["one_pass"], found["per_task"].roll(1, 0)) > 0.5
