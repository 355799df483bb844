"""The one-line replacement for `sum(losses).backward()`."""

import pytest
import torch
from torch import nn

from mtl_opt import PCGrad, Sum, UncertaintyWeighting, Weighted, backward


def losses_of(model):
    return model(torch.randn(5, 4, generator=torch.Generator().manual_seed(3))).square().mean(0)


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def test_it_writes_the_combination_of_the_task_gradients(model):
    parameters = list(model.parameters())
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
        for loss in losses_of(model)
    ]
    wanted = PCGrad()(torch.stack(rows))
    weights = backward(losses_of(model), model, PCGrad())
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in parameters]), wanted)
    torch.testing.assert_close(weights @ torch.stack(rows), wanted)


def test_sum_is_plain_training(model):
    losses_of(model).sum().backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    backward(list(losses_of(model)), model, Sum())
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_stateful_combiner_learns_over_steps(model):
    combiner, seen = UncertaintyWeighting(lr=0.1), []
    for _ in range(3):
        seen.append(backward(losses_of(model), model, combiner))
        model.zero_grad()
    assert not torch.allclose(seen[0], seen[2])


def test_tasks_that_the_combiner_knows_by_name_keep_their_names(model):
    combiner = Weighted({"qa": 1.0, "summary": 0.0, "投诉": 2.0})
    combiner.bind(["投诉", "qa", "summary"])
    assert backward(losses_of(model), model, combiner).tolist() == [2.0, 1.0, 0.0]


def test_private_parameters_of_a_model_that_names_its_tasks_are_kept_apart():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.qa = nn.Linear(4, 2), nn.Parameter(torch.ones(()))

        def task_parameters(self):
            return {"qa": [self.qa]}

        def forward(self, x):
            return self.trunk(x) * torch.stack([self.qa, torch.ones(())])

    named, combiner = Named(), Sum()
    combiner.bind(["qa", "anger"])
    losses = losses_of(named)
    wanted = torch.autograd.grad(losses[0], named.qa, retain_graph=True)[0]
    backward(losses, named, combiner)
    torch.testing.assert_close(named.qa.grad, wanted)


def test_a_summed_loss_is_refused(model):
    with pytest.raises(ValueError, match=r"one scalar per task, got shape \(\): a loss already summed"):
        backward(losses_of(model).sum(), model, PCGrad())


def test_gradients_that_were_already_summed_are_refused(model):
    losses_of(model).sum().backward()
    with pytest.raises(ValueError, match="already has a gradient: one summed over tasks cannot be taken apart"):
        backward(losses_of(model), model, PCGrad())
