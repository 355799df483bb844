"""Float16 losses are scaled, rows are not; what overflows is known by task."""

import torch
from references.jacobian_reference import random_rows, token_losses
from torch import nn

from mtl_opt import Sum
from mtl_opt.gradients import LossScaler, TaskGradients

TASKS = ("qa", "summary", "投诉")


def test_the_scale_halves_after_overflow_and_doubles_after_many_good_steps():
    scaler = LossScaler(8.0, growth_interval=3)
    for overflow, wanted in ((True, 4), (False, 4), (False, 4), (False, 8), (False, 8), (True, 4), (False, 4)):
        scaler.update(overflow)
        assert scaler.scale == wanted
    fresh = LossScaler()
    fresh.load_state_dict(scaler.state_dict())
    assert (fresh.scale, fresh.good_steps) == (4, 1)
    for _ in range(5):
        scaler.update(overflow=True)
    assert scaler.scale == 1


def test_rows_and_losses_come_out_unscaled(make_llama):
    model, rows = make_llama(), random_rows((0, 1, 2, 0))
    found, wanted = (TaskGradients(model, TASKS, "one_pass", scaler=s) for s in (LossScaler(2.0**10), None))
    for grads in (found, wanted):
        with grads.rows(rows.ids):
            grads.backward(*token_losses(model, rows, 3))
    torch.testing.assert_close(found.jacobian, wanted.jacobian)
    torch.testing.assert_close(found.losses(), wanted.losses())


def test_private_gradients_come_out_unscaled():
    trunk, head = nn.Linear(2, 2), nn.Linear(2, 1)
    private = {"qa": list(head.parameters())}
    grads = TaskGradients(nn.ModuleList([trunk, head]), ["qa"], "per_task", private=private, scaler=LossScaler(64.0))
    features = trunk(torch.ones(1, 2))
    grads.backward(head(features).sum()[None])
    grads.combine(Sum())
    torch.testing.assert_close(head.weight.grad, features.detach())


def test_tasks_that_overflow_are_named():
    model = nn.Linear(3, 1, bias=False)
    grads = TaskGradients(model, TASKS, "one_pass", scaler=LossScaler())
    ids, x = torch.arange(3), torch.ones(3, 3)
    for factor, wanted in ((torch.inf, ["summary"]), (1.0, [])):
        with grads.rows(ids):
            y = model(x).squeeze(-1)
            grads.backward(torch.stack([y[0], y[1] * factor, y[2]]))
        assert grads.non_finite() == wanted
        grads.zero()


def test_an_overflow_of_private_gradients_alone_is_found():
    trunk, head = nn.Linear(2, 2), nn.Linear(2, 1)
    grads = TaskGradients(nn.ModuleList([trunk, head]), ["qa", "summary"], "per_task",
                          private={"summary": list(head.parameters())})  # fmt: skip
    features = trunk(torch.ones(1, 2))
    grads.backward(torch.stack([features.sum(), head(features.detach() * torch.inf).sum() + 0 * features.sum()]))
    assert grads.non_finite() == ["summary"]
