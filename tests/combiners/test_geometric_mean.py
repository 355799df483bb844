"""The geometric mean of the losses, in logarithms."""

import pytest
import torch
from references.losses_reference import geometric_mean, gradient, losses_over_scales
from torchjd.scalarization import GeometricMean as Peer

from mtl_opt.combiners import GeometricMean, LogSum


@pytest.mark.parametrize("num_tasks", [1, 2, 5])
@pytest.mark.parametrize("decades", [0.5, 6.0])
def test_weights_are_the_derivatives_of_the_geometric_mean(num_tasks, decades):
    for seed in range(10):
        losses = losses_over_scales(num_tasks, decades, seed)
        weights = GeometricMean().weights(None, losses)
        torch.testing.assert_close(weights, gradient(geometric_mean, losses), rtol=1e-9, atol=0)
        torch.testing.assert_close(weights, gradient(Peer(), losses), rtol=1e-9, atol=0)


def test_equal_losses_get_the_mean():
    weights = GeometricMean().weights(None, torch.full((5,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(weights, torch.full((5,), 0.2, dtype=torch.float64))


def test_forty_small_losses_do_not_underflow():
    losses = torch.full((40,), 1e-12, dtype=torch.float64)  # their product is 1e-480
    torch.testing.assert_close(GeometricMean().weights(None, losses), torch.full((40,), 1 / 40, dtype=torch.float64))


def test_its_direction_is_that_of_the_sum_of_logarithms():
    losses = losses_over_scales(4, 2.0, seed=3)
    ratio = GeometricMean().weights(None, losses) / LogSum().weights(None, losses)
    torch.testing.assert_close(ratio, ratio[:1].expand(4))


def test_a_finished_task_does_not_stop_the_others():
    weights = GeometricMean().weights(None, torch.tensor([4.0, 0.0, 1.0]))
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.0, 1.0]))
    assert not GeometricMean().weights(None, torch.zeros(3)).any()


@pytest.mark.parametrize("losses", [[1e-38, 1e38], [1e-300, 1e300], [5e-324, 1.0]])
def test_losses_at_the_ends_of_the_range_give_finite_weights(losses):
    assert GeometricMean().weights(None, torch.tensor(losses, dtype=torch.float64)).float().isfinite().all()


def test_geometric_mean_negative_and_missing_losses_are_refused():
    combiner = GeometricMean()
    combiner.bind(["qa", "投诉"])
    with pytest.raises(ValueError, match=r"loss of task `投诉` must be at least 0 for GeometricMean, got -0\.5"):
        combiner.weights(None, torch.tensor([1.0, -0.5]))
    with pytest.raises(ValueError, match=r"`GeometricMean` needs `losses` \[tasks\], got None"):
        combiner.weights(torch.eye(2))
