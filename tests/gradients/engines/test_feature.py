"""Engine `feature`: gradients at the shared representation of encoder and heads models."""

import pytest
import torch
from torch import nn

from mtl_opt import MGDA, PCGrad, Sum
from mtl_opt.combiners import GradDrop, GradNorm, Scoped
from mtl_opt.gradients import TaskGradients

TASKS = ("qa", "summary", "投诉")


class EncoderHeads(nn.Module):
    """Every row has labels of all tasks."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in TASKS)

    def task_parameters(self):
        return {task: list(head.parameters()) for task, head in zip(TASKS, self.heads, strict=True)}

    def losses(self, x, y):
        z = self.encoder(x)
        return torch.stack([(head(z).squeeze(-1) - y[:, t]).square().mean() for t, head in enumerate(self.heads)])


@pytest.fixture
def data():
    return torch.randn(8, 4), torch.randn(8, 3)


def step(model, data, engine, combiner):
    grads = TaskGradients(model, TASKS, engine)
    with grads.rows(torch.zeros(8, dtype=torch.int64)):
        grads.backward(model.losses(*data), torch.ones(3))
    grads.combine(combiner)
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    return grads, found


def test_rows_are_the_gradients_at_the_representation(data):
    model = EncoderHeads()
    grads, _ = step(model, data, "feature:encoder", Sum())
    z = model.encoder(data[0]).detach().requires_grad_()
    for t, head in enumerate(model.heads):
        loss = (head(z).squeeze(-1) - data[1][:, t]).square().mean()
        (wanted,) = torch.autograd.grad(loss, z)
        torch.testing.assert_close(grads.jacobian[t], wanted.flatten())
    torch.testing.assert_close(grads.gramian(), grads.jacobian @ grads.jacobian.T)


def test_with_the_sum_everything_is_plain_training(data):
    model = EncoderHeads()
    _, found = step(model, data, "feature:encoder", Sum())
    model.zero_grad()
    model.losses(*data).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


@pytest.mark.parametrize("combiner", [PCGrad, MGDA])
def test_the_combination_is_the_weighted_sum_of_plain_gradients(data, combiner):
    model = EncoderHeads()
    grads = TaskGradients(model, TASKS, "feature:encoder")
    with grads.rows(torch.zeros(8, dtype=torch.int64)):
        grads.backward(model.losses(*data), torch.ones(3))
    weights = grads.combine(combiner())
    found = [p.grad.clone() for p in model.encoder.parameters()]
    grads.zero()
    wanted = torch.autograd.grad((model.losses(*data) * weights).sum(), list(model.encoder.parameters()))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_method_of_the_jacobian_combines_at_the_representation(data):
    model = EncoderHeads()
    _, found = step(model, data, "feature:encoder", GradDrop())
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert found["encoder.0.weight"].any()


def test_what_it_cannot_do_is_refused(data):
    model = EncoderHeads()
    with pytest.raises(ValueError, match="no module `encode`"):
        TaskGradients(model, TASKS, "feature:encode")
    with pytest.raises(ValueError, match="cannot tell two halves"):
        TaskGradients(model, TASKS, "feature:encoder", halves=True)
    for combiner in (Scoped(PCGrad()), GradNorm()):
        with pytest.raises(ValueError, match="measures a representation, which has no blocks"):
            step(model, data, "feature:encoder", combiner)
    grads = TaskGradients(model, TASKS, "feature:encoder")
    with pytest.raises(ValueError, match="one micro-batch per step, whose forward runs `encoder`"):
        grads.backward(model.losses(*data), torch.ones(3))
    with grads.rows(torch.zeros(8, dtype=torch.int64)):
        grads.backward(model.losses(*data), torch.ones(3))
        with pytest.raises(ValueError, match="one micro-batch per step"):
            grads.backward(model.losses(*data), torch.ones(3))
