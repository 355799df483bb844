"""TrimmedMean is the mean of the sorted values without the ends."""

import pytest
import torch
from references.contract_inputs import jacobian

from mtl_opt.combiners import Mean, TrimmedMean


@pytest.mark.parametrize(("num_tasks", "num_trimmed"), [(m, k) for m in range(1, 14) for k in range((m + 1) // 2)])
@pytest.mark.parametrize("seed", range(2))
def test_it_equals_the_mean_of_the_sorted_middle_and_torchjd(num_tasks, num_trimmed, seed):
    from torchjd.aggregation import TrimmedMean as Peer

    gradients = jacobian(num_tasks, 257, seed=seed)
    found = TrimmedMean(num_trimmed)(gradients)
    wanted = gradients.sort(0).values[num_trimmed : num_tasks - num_trimmed].mean(0)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found, Peer(trim_number=num_trimmed)(gradients), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("num_tasks", [3, 8, 9])
def test_an_outlier_leaves_no_trace_even_in_the_rounding(num_tasks):
    gradients = jacobian(num_tasks, 100, dtype=torch.float32)
    for size in (3e37, -3e37):
        changed = gradients.clone()
        changed[1] = size
        other = changed.clone()
        other[1] = size / 1e30
        assert torch.equal(TrimmedMean()(changed), TrimmedMean()(other))
        assert TrimmedMean()(changed).abs().max() < 10


def test_equal_values_are_left_out_once_each():
    gradients = torch.tensor([[5.0], [5.0], [1.0], [1.0]])
    assert TrimmedMean()(gradients).item() == 3.0


@pytest.mark.parametrize(("num_tasks", "num_trimmed"), [(1, 1), (2, 1), (4, 2), (3, 0)])
def test_trimmed_mean_too_few_tasks_take_the_mean(num_tasks, num_trimmed):
    gradients = jacobian(num_tasks)
    torch.testing.assert_close(TrimmedMean(num_trimmed)(gradients), Mean()(gradients))


def test_tasks_in_any_order_give_the_same_update():
    gradients = jacobian(7, 50)
    torch.testing.assert_close(TrimmedMean(2)(gradients[torch.randperm(7)]), TrimmedMean(2)(gradients))


@pytest.mark.parametrize("num_params", [1, 1023, 40_000, 70_001])
@pytest.mark.parametrize("num_trimmed", [1, 2])
def test_trimmed_mean_blocks_of_columns_leave_no_seam(num_params, num_trimmed):
    gradients = jacobian(7, num_params, dtype=torch.float32)
    wanted = gradients.sort(0).values[num_trimmed : 7 - num_trimmed].mean(0)
    torch.testing.assert_close(TrimmedMean(num_trimmed)(gradients), wanted)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("row", range(5))
def test_a_value_that_is_not_finite_is_never_trimmed_away(row, value):
    gradients = jacobian(5, 70_001, dtype=torch.float32)
    gradients[row, 70_000] = value
    with pytest.raises(ValueError, match=f"gradient of task `{row}` is not finite"):
        TrimmedMean(2)(gradients)


def test_a_finite_sum_that_overflows_is_no_fault_of_a_task():
    gradients = torch.full((4, 3), 3e38)
    TrimmedMean()(gradients)


def test_trimmed_mean_weights_and_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`TrimmedMean` has no weights for a Gramian"):
        TrimmedMean().weights(torch.eye(2))
    for num_trimmed in (-1, 1.5):
        with pytest.raises(ValueError, match="`num_trimmed` must be a whole number of at least 0, got"):
            TrimmedMean(num_trimmed)
