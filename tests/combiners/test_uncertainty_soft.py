"""UW-SO: a softmax over inverse losses."""

import pytest
import torch
from references.losses_reference import gradient, losses_over_scales, soft_optimal_uncertainty

from mtl_opt.combiners import SoftOptimalUncertainty


@pytest.mark.parametrize("num_tasks", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 20.0])
def test_weights_are_the_derivatives_with_the_shares_held_constant(num_tasks, temperature):
    for seed in range(10):
        losses = losses_over_scales(num_tasks, 1.0, seed)
        wanted = gradient(lambda leaf: soft_optimal_uncertainty(leaf, temperature), losses)
        found = SoftOptimalUncertainty(temperature).weights(None, losses)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-300)


def test_two_tasks_follow_the_closed_form():
    weights = SoftOptimalUncertainty(temperature=2.0).weights(None, torch.tensor([0.25, 0.5], dtype=torch.float64))
    share = 1 / (1 + torch.exp(torch.tensor((2 - 4) / 2.0, dtype=torch.float64)))
    torch.testing.assert_close(weights, torch.stack([share, 1 - share]))


def test_a_high_temperature_weights_all_tasks_alike_and_a_low_one_only_the_smallest_loss():
    losses = torch.tensor([2.0, 0.5, 1.0])
    torch.testing.assert_close(
        SoftOptimalUncertainty(1e9).weights(None, losses), torch.full((3,), 1 / 3), rtol=1e-6, atol=0
    )
    assert SoftOptimalUncertainty(1e-9).weights(None, losses).tolist() == [0.0, 1.0, 0.0]


def test_a_finished_task_takes_no_part_unless_all_are_finished():
    weights = SoftOptimalUncertainty().weights(None, torch.tensor([1.0, 0.0, 1.0]))
    assert weights.tolist() == [0.5, 0.0, 0.5]
    assert SoftOptimalUncertainty().weights(None, torch.zeros(4)).tolist() == [0.25] * 4


def test_losses_at_the_ends_of_the_range_give_shares():
    losses = torch.tensor([5e-324, 1e-30, 1.0, 1e300], dtype=torch.float64)
    for temperature in (1e-300, 1.0, 1e300):
        weights = SoftOptimalUncertainty(temperature).weights(None, losses)
        torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_uncertainty_soft_arguments_and_losses_are_checked():
    with pytest.raises(ValueError, match="`temperature` must be a number above 0, got 0"):
        SoftOptimalUncertainty(temperature=0)
    with pytest.raises(ValueError, match="loss of task `0` must be at least 0 for SoftOptimalUncertainty, got -1"):
        SoftOptimalUncertainty().weights(None, torch.tensor([-1.0, 1.0]))
    with pytest.raises(ValueError, match=r"`SoftOptimalUncertainty` needs `losses` \[tasks\], got None"):
        SoftOptimalUncertainty().weights(torch.eye(2))
