"""The two published regressions: their data, their networks, and what a few steps do."""

import torch

from experiments.gradnorm_synthetic import measure as gradnorm
from experiments.uncertainty_regression import measure as uncertainty


def test_the_noise_of_the_sample_is_near_the_true_one_and_that_of_the_best_line():
    x, y = uncertainty.draw(torch.Generator().manual_seed(0))
    found = uncertainty.residual_noise(x, y)
    for task, (slope, shift) in enumerate(uncertainty.LINES):
        of_the_true_line = (y[:, task] - slope * x[:, 0] - shift).square().mean().sqrt()
        assert 0.8 * uncertainty.NOISE[task] < found[task] <= of_the_true_line


def test_uncertainty_moves_towards_the_noise():
    first, second = (uncertainty.learn(0, 20) for _ in range(2))
    assert first["sigma"] == second["sigma"]
    assert 1 < first["course"][0][0] < first["sigma"][0] < 10


def test_targets_of_the_synthetic_problem_have_their_scale():
    x, y = gradnorm.draw(2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.norm(dim=1), torch.ones(len(x)))
    assert y[0].abs().max() <= 1
    assert 90 < y[1].abs().max() <= 100
    inner = torch.atanh(y[0].double().clamp(-0.999, 0.999))
    assert inner.square().mean().sqrt() > 2  # almost ±σ: a standard deviation near 10 before tanh
    correlation = torch.corrcoef(torch.stack([y[0].flatten(), y[1].flatten()]))[0, 1]
    assert correlation > 0.7  # the common B outweighs ε


def test_gradnorm_lifts_the_small_task_from_the_first_steps():
    found = gradnorm.learn("gradnorm", 2, 20, 0)
    assert found["weights"][0] > found["weights"][1]
    assert abs(sum(found["weights"]) - 2) < 1e-6
    assert gradnorm.learn("sum", 2, 20, 0)["weights"] == [1.0, 1.0]
