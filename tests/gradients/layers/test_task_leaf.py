"""Layers without a product of their own: one local vector-Jacobian product per task, and a check of unknown ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_opt.gradients import TaskGradients

TASKS = ["qa", "summary", "anger"]
IDS = torch.tensor([0, 2, 2, 0, 2])


def rows_of(engine, model, x, ids=IDS):
    grads = TaskGradients(model, TASKS, engine)
    with grads.rows(ids):
        squares = model(x).flatten(1).square().mean(1)
        losses = [squares[ids == t].mean() if (ids == t).any() else squares.new_zeros(()) for t in range(3)]
        grads.backward(torch.stack(losses))
    return grads.jacobian


class Scaled(nn.Module):
    """A layer of somebody else's: a scale per feature, and an option that is no tensor."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(6) + 0.5)
        self.unused = nn.Parameter(torch.rand(2))

    def forward(self, hidden, power: float = 1.0):
        return hidden.sign() * (hidden.abs() + 0.1).pow(power) * self.scale


class Calls(nn.Module):
    """Calls a layer with its input by name and an option."""

    def __init__(self):
        super().__init__()
        self.first, self.layer = nn.Linear(6, 6), Scaled()

    def forward(self, x):
        return self.layer(hidden=self.first(x), power=1.5) + self.layer(self.first(x), 2.0)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (
            nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.PReLU(4), nn.Conv2d(4, 1, 2, stride=2)),
            (5, 2, 8, 8),
        ),
        (nn.Sequential(nn.Conv1d(2, 4, 3, padding=1, groups=2), nn.Tanh(), nn.ConvTranspose1d(4, 2, 2)), (5, 2, 7)),
        (nn.Sequential(nn.Linear(6, 6), nn.InstanceNorm1d(3, affine=True), nn.Linear(6, 1)), (5, 3, 6)),
        (Calls(), (5, 4, 6)),
    ],
    ids=["conv2d", "conv1d", "instance_norm", "unknown"],
)
def test_rows_equal_per_task(model, shape, row_error):
    model, x = model.double(), torch.randn(shape, dtype=torch.float64)
    assert row_error(rows_of("one_pass", model, x), rows_of("per_task", model, x)) < 1e-12


class OverRows(nn.Module):
    """An unknown layer that does with its rows what it is told."""

    def __init__(self, function):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))
        self.function = function

    def forward(self, x):
        return self.function(self, x * self.scale)


def remember(layer, x):
    layer.seen += 1
    return x


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda _, x: x - x.mean(0), "mixes rows or draws random numbers"),
        (lambda _, x: F.dropout(x, 0.5, training=True), "mixes rows or draws random numbers"),
        (remember, "changes its own state"),
        (lambda _, x: (x, x), "does not return one tensor with the rows"),
        (lambda _, x: x.sum(0), "does not return one tensor with the rows"),
    ],
)
def test_an_unknown_layer_is_tried_once_and_refused_by_name(function, reason):
    model = nn.Sequential(nn.Linear(6, 6), OverRows(function))
    grads = TaskGradients(model, TASKS, "one_pass")
    before = torch.get_rng_state()
    message = rf"Layer `1` \(OverRows\) {reason}.*per_task"
    with grads.rows(IDS), pytest.raises(ValueError, match=message):
        model(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))
    assert float(model[1].seen) == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_second_tensor_is_refused_by_name():
    class Options(Scaled):
        def forward(self, hidden, power=1.0):
            return hidden * self.scale * power

    model = Options()
    grads = TaskGradients(model, TASKS, "one_pass")
    with grads.rows(IDS):
        model(torch.randn(5, 6), power=2.0)
        with pytest.raises(ValueError, match=r"\(Options\) was called with more than one tensor.*per_task"):
            model(torch.randn(5, 6), power=torch.ones(5, 6))
        with pytest.raises(ValueError, match=r"more than one tensor, or with none"):
            model(hidden=[1.0])


def test_a_layer_that_mixes_tokens_is_refused_for_packed_rows():
    model = nn.Conv1d(4, 4, 1)  # [batch, channels, length]: as many channels as tokens in a row of ids
    grads = TaskGradients(model, TASKS, "one_pass")
    packed = torch.tensor([[0, 0, 1, 1], [2, 2, 0, 0]])
    with grads.rows(packed), pytest.raises(ValueError, match=r"\(Conv1d\) may mix the tokens.*per_task"):
        model(torch.randn(2, 4, 3))


class Experts(nn.Module):
    """A mixture of somebody else's: every expert takes the tokens that are routed to it, in an order of its own."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x):
        tokens = x.flatten(0, 1)
        chosen = (tokens.sum(-1) > 0).long()
        y = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            y[chosen == number] = expert(tokens[chosen == number])
        return y.view_as(x)


def test_experts_that_take_gathered_tokens_are_refused_by_name_and_work_with_per_task():
    model, x = nn.Sequential(nn.Linear(6, 6), Experts()), torch.randn(5, 7, 6)
    message = r"`1\.experts\.0` \(Linear\) got an input of shape \(\d+, 6\).*\(5,\) of the task ids.*per_task"
    with pytest.raises(ValueError, match=message):
        rows_of("one_pass", model, x)
    assert float(rows_of("per_task", model, x)[[0, 2]].norm()) > 0
