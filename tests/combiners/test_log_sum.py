"""The sum of the logarithms of the losses."""

import pytest
import torch
from references.losses_reference import gradient, log_sum, losses_over_scales

from mtl_opt.combiners import LogSum


@pytest.mark.parametrize("num_tasks", [1, 2, 5])
@pytest.mark.parametrize("decades", [0.5, 15.0])
def test_weights_are_the_derivatives_of_the_sum_of_logarithms(num_tasks, decades):
    for seed in range(10):
        losses = losses_over_scales(num_tasks, decades, seed)
        torch.testing.assert_close(LogSum().weights(None, losses), gradient(log_sum, losses), rtol=1e-12, atol=0)


def test_the_update_does_not_depend_on_the_unit_of_a_loss():
    rows, losses = torch.randn(3, 6, dtype=torch.float64), torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    unit = torch.tensor([1e-3, 1.0, 1e6], dtype=torch.float64)
    torch.testing.assert_close(LogSum()(unit[:, None] * rows, unit * losses), LogSum()(rows, losses))


def test_a_finished_task_takes_no_part_and_a_nearly_finished_one_stays_finite():
    weights = LogSum().weights(None, torch.tensor([4.0, 0.0, 1e-45]))
    assert weights[:2].tolist() == [0.25, 0.0]
    assert weights.isfinite().all()


def test_log_sum_negative_and_missing_losses_are_refused():
    with pytest.raises(ValueError, match="loss of task `1` must be at least 0 for LogSum, got -2"):
        LogSum().weights(None, torch.tensor([1.0, -2.0]))
    with pytest.raises(ValueError, match=r"`LogSum` needs `losses` \[tasks\], got None"):
        LogSum().weights(torch.eye(2))
