"""Weights from losses alone, for engines that sum gradients themselves."""

import pytest
import torch
from torch import nn

from mtl_opt import LossWeights, PCGrad, Sum, UncertaintyWeighting, Weighted
from mtl_opt.combiners import SoftOptimalUncertainty

TASKS = ("qa", "summary", "投诉")


def test_with_the_sum_the_scalar_is_the_sum_of_the_present_losses():
    weigh = LossWeights(Sum(), TASKS)
    losses = torch.tensor([1.0, 2.0, torch.nan], requires_grad=True)
    scalar = weigh(losses, torch.tensor([4, 2, 0]))
    assert scalar.item() == 3
    scalar.backward()
    assert losses.grad.tolist() == [1.0, 1.0, 0.0]


def test_the_weights_are_those_of_the_step_before():
    weigh = LossWeights(SoftOptimalUncertainty(), TASKS)
    first = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    second = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    own = SoftOptimalUncertainty()
    wanted = own.weights(None, first.detach().double())
    torch.testing.assert_close(weigh(first).double(), (wanted * first.double()).sum())
    weigh.step()
    torch.testing.assert_close(weigh(second).double(), (wanted * second.double()).sum())
    torch.testing.assert_close(weigh.step(), own.weights(None, second.detach().double()))


def test_losses_of_micro_batches_are_averaged_by_their_counts():
    weigh = LossWeights(SoftOptimalUncertainty(), TASKS)
    weigh(torch.tensor([1.0, 1.0, 1.0], requires_grad=True), torch.tensor([1, 1, 1]))
    weigh(torch.tensor([4.0, 1.0, 7.0], requires_grad=True), torch.tensor([2, 3, 0]))
    wanted = SoftOptimalUncertainty().weights(None, torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(weigh.step(), wanted)


def test_a_learnt_weighting_trains():
    model, combiner = nn.Linear(3, 3), UncertaintyWeighting(lr=0.1)
    weigh, x, y = LossWeights(combiner, TASKS), torch.randn(16, 3), torch.randn(16, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = []
    for _ in range(30):
        losses = (model(x) - y).square().mean(0)
        optimizer.zero_grad()
        weigh(losses).backward()
        optimizer.step()
        weigh.step()
        history.append(float(losses.detach().sum()))
    assert history[-1] < history[0]
    assert not torch.allclose(weigh.weights, weigh.weights[0].expand(3))


def test_what_it_cannot_weigh_is_refused():
    with pytest.raises(ValueError, match="`PCGrad` requires `gramian`, but an engine that sums gradients itself"):
        LossWeights(PCGrad(), TASKS)
    weigh = LossWeights(Weighted(), TASKS)
    with pytest.raises(ValueError, match="There are no losses to weigh"):
        weigh.step()
    with pytest.raises(ValueError, match=r"`losses` must be \[3\]"):
        weigh(torch.ones(2, requires_grad=True))
