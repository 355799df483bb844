"""One backward fills the rows of all tasks, exactly as one backward per task would."""

import pytest
import torch
from references.jacobian_reference import join, random_rows, reference_jacobian, token_losses
from torch import nn

from mtl_opt.batch import task_rows
from mtl_opt.gradients import TaskGradients

TASKS = ("qa", "summary", "投诉", "anger")
# Rows of a task apart from each other, tasks absent from a micro-batch, and one batch with equal parts.
MICRO_BATCHES = ((2, 0, 0, 1, 0, 2, 2), (0, 3, 0), (0, 0, 1, 1, 2, 2, 3, 3))


def test_rows_equal_per_task_in_float32(model_and_losses, take_rows, row_error):
    model, losses_of = model_and_losses
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    found = take_rows(TaskGradients(model, TASKS, "one_pass"), model, losses_of, batches)
    wanted = take_rows(TaskGradients(model, TASKS, "per_task"), model, losses_of, batches)
    assert row_error(found, wanted) < 1e-6


def test_rows_equal_per_task_in_float64(model_and_losses, take_rows, row_error):
    model, losses_of = model_and_losses
    model.double()
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    found = take_rows(TaskGradients(model, TASKS, "one_pass"), model, losses_of, batches)
    wanted = take_rows(TaskGradients(model, TASKS, "per_task"), model, losses_of, batches)
    assert found.dtype == torch.float64
    assert row_error(found, wanted) < 1e-12


def test_accumulated_rows_equal_plain_backwards_over_one_large_batch(model_and_losses, take_rows, by_name, row_error):
    model, losses_of = model_and_losses
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    grads = TaskGradients(model, TASKS, "one_pass")
    found = take_rows(grads, model, losses_of, batches)
    wanted = by_name(grads, reference_jacobian(model, losses_of, join(batches), len(TASKS)))
    assert row_error(found, wanted) < 2e-6


def test_one_row_of_one_task_is_enough(make_llama, take_rows, row_error):
    model = make_llama()
    batches = [random_rows([2])]
    found = take_rows(TaskGradients(model, TASKS, "one_pass"), model, token_losses, batches)
    wanted = take_rows(TaskGradients(model, TASKS, "per_task"), model, token_losses, batches)
    assert row_error(found, wanted) < 1e-6
    assert found[[0, 1, 3]].count_nonzero() == 0


@pytest.mark.parametrize("ids", [(0, 0, 1, 1), (1, 0, 0, 1, 1)])
def test_rows_equal_backwards_of_the_same_forward_with_dropout_on(ids, make_llama, take_rows, by_name, row_error):
    model = make_llama(lora_dropout=0.3).train()
    rows = random_rows(ids)
    grads = TaskGradients(model, TASKS[:2], "one_pass")
    torch.manual_seed(7)
    found = take_rows(grads, model, token_losses, [rows])

    torch.manual_seed(7)
    losses, _ = token_losses(model, rows, 2)
    wanted = {name: [] for name in grads.buffer.parameters}
    for task in range(2):
        model.zero_grad()
        losses[task].backward(retain_graph=True)
        for name, parameter in grads.buffer.parameters.items():
            wanted[name].append(parameter.grad)
    assert row_error(found, by_name(grads, {name: torch.stack(parts) for name, parts in wanted.items()})) < 1e-6


def test_rows_agree_under_bfloat16_autocast_with_the_backward_outside_it(model_and_losses, row_error):
    model, losses_of = model_and_losses
    rows = random_rows((0, 1, 1, 0, 1))
    found = {}
    for engine in ("one_pass", "per_task"):
        grads = TaskGradients(model, TASKS[:2], engine)
        with grads.rows(rows.ids):
            with torch.autocast("cpu", torch.bfloat16):
                losses, counts = losses_of(model, rows, 2)
            grads.backward(losses, counts)
        found[engine] = grads.jacobian
    assert found["one_pass"].dtype == torch.float32
    assert row_error(found["one_pass"], found["per_task"]) < 0.02  # bfloat16 keeps 8 bits


def test_rows_agree_for_a_model_in_bfloat16(make_llama, take_rows, row_error):
    model = make_llama().to(torch.bfloat16)
    batches = [random_rows((0, 1, 1, 0, 1))]
    found = take_rows(TaskGradients(model, TASKS[:2], "one_pass"), model, token_losses, batches)
    wanted = take_rows(TaskGradients(model, TASKS[:2], "per_task"), model, token_losses, batches)
    assert row_error(found, wanted) < 0.03


@pytest.mark.parametrize("lora", [True, False])
def test_activation_checkpointing_gives_the_same_rows(lora, make_llama, take_rows, row_error):
    model = make_llama(lora)
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    plain = take_rows(TaskGradients(model, TASKS, "one_pass"), model, token_losses, batches)
    model.train()
    # transformers renamed it: 5.23 warns about the old name, 5.0 has no other.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    found = take_rows(TaskGradients(model, TASKS, "one_pass", verify=True), model, token_losses, batches)
    assert row_error(found, plain) < 1e-6


def test_a_second_forward_inside_the_same_rows_adds_to_them(make_llama, row_error):
    model = make_llama()
    rows = random_rows((1, 0, 1))
    grads = TaskGradients(model, TASKS[:2], "one_pass")
    with grads.rows(rows.ids):
        grads.backward(*token_losses(model, rows, 2))
        once = grads.buffer.rows.clone()
        grads.backward(*token_losses(model, rows, 2))
    assert row_error(grads.buffer.rows, 2 * once) < 1e-6
    assert row_error(grads.jacobian, once / grads.counts[:, None].float() * 2) < 1e-6


def test_two_forwards_of_one_loss_are_both_differentiated(make_llama, by_name, row_error):
    model = make_llama()
    rows, other = random_rows((1, 0, 1)), random_rows((1, 0, 1))

    def both(of, first, num_tasks):
        losses, counts = token_losses(of, first, num_tasks)
        return losses * token_losses(of, other, num_tasks)[0], counts

    grads = TaskGradients(model, TASKS[:2], "one_pass")
    with grads.rows(rows.ids):
        grads.backward(*both(model, rows, 2))
    assert row_error(grads.jacobian, by_name(grads, reference_jacobian(model, both, rows, 2))) < 2e-6


class Gathering(nn.Module):
    """A layer on rows in another order than the batch, as experts see them."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.outer = nn.Linear(3, 1)

    def forward(self, x, ids):
        order = torch.tensor([3, 1, 0, 2])
        with task_rows(ids[order]):
            gathered = torch.tanh(self.inner(x[order]))
        return self.outer(gathered[order.argsort()]).squeeze(-1)


def test_a_module_that_gathers_rows_says_so_with_an_inner_context(row_error):
    model = Gathering()
    ids, x = torch.tensor([0, 0, 1, 1]), torch.randn(4, 3)
    found = {}
    for engine in ("one_pass", "per_task"):
        grads = TaskGradients(model, ["qa", "anger"], engine)
        with grads.rows(ids):
            y = model(x, ids).square()
            grads.backward(torch.stack([y[:2].mean(), y[2:].mean()]))
        found[engine] = grads.jacobian
    assert row_error(found["one_pass"], found["per_task"]) < 1e-6
