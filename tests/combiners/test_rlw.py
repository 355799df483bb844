"""Random loss weighting draws the weights anew in every step."""

import pytest
import torch
from torch import Tensor
from torchjd.scalarization import Random

from mtl_opt.combiners import RandomLossWeighting

LOSSES = torch.ones(4, dtype=torch.float64)


def drawn(combiner: RandomLossWeighting, num_steps: int) -> Tensor:  # [steps, tasks]
    return torch.stack([combiner.weights(None, LOSSES) for _ in range(num_steps)])


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_torchjd_drawing_from_the_same_seed(seed):
    combiner = RandomLossWeighting(seed)
    torch.manual_seed(seed)
    for _ in range(3):
        losses = LOSSES.clone().requires_grad_()
        Random()(losses).backward()
        torch.testing.assert_close(combiner.weights(None, LOSSES), losses.grad)


def test_weights_are_positive_and_add_up_to_one():
    weights = drawn(RandomLossWeighting(), 200)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(200, dtype=torch.float64))


def test_every_task_has_the_same_weight_in_expectation():
    weights = drawn(RandomLossWeighting(), 4000)
    torch.testing.assert_close(weights.mean(0), LOSSES / 4, rtol=0, atol=0.01)
    assert (weights.std(0) > 0.15).all()


def test_steps_differ_and_a_seed_repeats_them():
    first, again, other = (drawn(RandomLossWeighting(seed), 3) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_absent_tasks_leave_the_ratio_of_the_present_ones():
    whole, part = RandomLossWeighting(), RandomLossWeighting()
    part.bind(["0", "1", "2", "3"])
    all_weights = whole.weights(None, LOSSES)
    weights = part.weights(None, LOSSES[:2], tasks=[3, 1])
    torch.testing.assert_close(weights, all_weights[[3, 1]] / all_weights[[3, 1]].sum())


def test_it_needs_no_losses_where_it_has_a_gramian():
    assert RandomLossWeighting().weights(torch.eye(3)).shape == (3,)
