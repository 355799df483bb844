"""Projection while accumulating."""

import torch
from torch import nn

from mtl_opt import OnlineProjection, PCGrad
from mtl_opt.linalg import gramian


def test_two_tasks_give_the_one_sided_projection_per_tensor():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    x = torch.randn(6, 3)
    online = OnlineProjection(model.parameters())
    losses = [model(x[:3]).square().mean(), model(x[3:]).sum()]
    plain = [torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for loss in losses]
    for loss in losses:
        online.backward(loss, retain_graph=True)
    for parameter, first, second in zip(model.parameters(), *plain, strict=True):
        inner = (first * second).sum()
        wanted = first + second - min(float(inner), 0.0) / first.square().sum() * first
        torch.testing.assert_close(parameter.grad, wanted)


def test_without_conflict_it_is_the_sum_and_with_conflict_nothing_opposes_what_was_there():
    weight = nn.Parameter(torch.zeros(2))
    online = OnlineProjection([weight])
    online.backward(weight @ torch.tensor([1.0, 0.0]))
    online.backward(weight @ torch.tensor([1.0, 1.0]))
    assert weight.grad.tolist() == [2.0, 1.0]
    before = weight.grad.clone()
    online.backward(weight @ torch.tensor([-3.0, 1.0]))
    assert float((weight.grad - before) @ before) == 0
    assert online.cosines[0] < 0


def test_the_result_depends_on_the_order_as_that_of_pcgrad_does_not():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    found = []
    for order in ((0, 1), (1, 0)):
        weight = nn.Parameter(torch.zeros(2))
        online = OnlineProjection([weight])
        for i in order:
            online.backward(weight @ rows[i])
        found.append(weight.grad)
    assert not torch.allclose(*found)
    torch.testing.assert_close(PCGrad()(rows), PCGrad().weights(gramian(rows)) @ rows)


def test_zero_and_unused_gradients_stay_finite():
    used, unused = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    online = OnlineProjection([used, unused])
    online.backward((used * 0).sum())
    online.backward(-used.sum())
    assert used.grad.tolist() == [-1.0, -1.0]
    assert unused.grad is None
