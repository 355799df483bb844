"""Engine per_task is the reference: one autograd call per task, whatever the model."""

import pytest
import torch
from references.jacobian_reference import join, random_rows, reference_jacobian
from torch import nn

from mtl_opt.gradients import TaskGradients

TASKS = ("qa", "summary", "anger", "never")
MICRO_BATCHES = ((2, 0, 0, 1, 0, 2, 2), (0, 2, 0), (0, 0, 1, 1, 2, 2))


def test_accumulated_rows_equal_plain_backwards_over_one_large_batch(model_and_losses, take_rows, by_name, row_error):
    model, losses_of = model_and_losses
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    grads = TaskGradients(model, TASKS, "per_task")
    found = take_rows(grads, model, losses_of, batches)
    wanted = by_name(grads, reference_jacobian(model, losses_of, join(batches), len(TASKS)))
    assert row_error(found, wanted) < 2e-6
    assert found[3].count_nonzero() == 0
    assert grads.present == [0, 1, 2]


def test_tied_weights_get_the_gradient_of_both_uses(make_llama, take_rows, by_name, row_error):
    from references.jacobian_reference import token_losses

    model, batch = make_llama(lora=False, tied=True), random_rows((0, 1, 1))
    grads = TaskGradients(model, TASKS[:2], "per_task")
    found = take_rows(grads, model, token_losses, [batch])
    assert row_error(found, by_name(grads, reference_jacobian(model, token_losses, batch, 2))) < 2e-6


def test_parameters_that_no_loss_reaches_have_zero_columns():
    model = nn.ModuleDict({"used": nn.Linear(2, 2, bias=False), "unused": nn.Linear(2, 2, bias=False)})
    grads = TaskGradients(model, ["qa", "anger"], "per_task")
    grads.backward(model["used"](torch.ones(3, 2)).sum(0))
    assert grads.jacobian[:, grads.buffer.tensors["unused.weight"]].count_nonzero() == 0
    assert grads.jacobian[:, grads.buffer.tensors["used.weight"]].count_nonzero() == 4


def test_no_ids_are_needed():
    model = nn.Linear(2, 2)
    grads = TaskGradients(model, ["qa", "anger"], "per_task")
    grads.backward(model(torch.ones(3, 2)).mean(0))
    assert grads.jacobian.tolist() == [[1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1]]


def test_the_graph_is_freed_after_the_last_task():
    model = nn.Linear(2, 2)
    grads = TaskGradients(model, ["qa", "anger"], "per_task")
    losses = model(torch.ones(3, 2)).square().mean(0)
    grads.backward(losses)
    with pytest.raises(RuntimeError, match="second time"):
        grads.backward(losses)
