"""FairGrad meets the alpha-fair condition for every alpha."""

import pytest
import torch

from mtl_opt.combiners import FairGrad, Mean


def draw(num_tasks, seed, spread=0.0, num_params=None):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_tasks, num_params or 2 * num_tasks + 3, generator=generator, dtype=torch.float64)
    return rows * torch.logspace(-spread, spread, num_tasks, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0, 5.0, 10.0])
@pytest.mark.parametrize("num_tasks", [1, 2, 5, 20])
def test_the_fairness_condition_holds(alpha, num_tasks):
    for seed in range(4):
        rows = draw(num_tasks, seed, spread=0.3)
        gramian = rows @ rows.T
        weights = FairGrad(alpha).weights(gramian)
        assert weights.min() > 0
        assert (weights.log() / alpha + (gramian @ weights).log()).abs().max() < 1e-6


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_fairness_condition_holds_for_norms_far_apart(alpha):
    for seed in range(4):
        rows = draw(5, seed, spread=3)
        gains = rows @ rows.T
        weights = FairGrad(alpha).weights(gains)
        rounding = 1e-14 * (gains.abs() @ weights) / (gains @ weights).abs()  # gains of large rows cancel
        assert ((weights.log() / alpha + (gains @ weights).log()).abs() < 1e-8 + rounding).all()


def test_alpha_0_is_the_mean():
    rows = draw(4, 0)
    assert torch.equal(FairGrad(0).weights(rows @ rows.T), Mean().weights(rows @ rows.T))


def test_a_larger_alpha_evens_out_the_gains():
    rows = draw(4, 1, spread=1)
    spreads = []
    for alpha in (0.5, 1.0, 2.0, 5.0):
        gains = rows @ FairGrad(alpha)(rows)
        spreads.append(float(gains.max() / gains.min()))
    assert spreads == sorted(spreads, reverse=True)


def test_no_task_loses():
    for seed in range(20):
        rows = draw(6, seed, spread=1)
        assert (rows @ FairGrad(2.0)(rows)).min() > 0


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match="`alpha` must be a number of at least 0, got"):
        FairGrad(alpha)
