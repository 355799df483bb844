"""Dynamic weight average compares the last two windows of every task."""

import math

import pytest
import torch
from references.losses_reference import DWAReference
from torchjd.scalarization import DWA

from mtl_opt.combiners import DynamicWeightAverage


@pytest.mark.parametrize(("temperature", "window"), [(2.0, 1), (0.5, 3), (2.0, 7)])
def test_dwa_equals_the_reference_when_tasks_come_and_go(temperature, window):
    combiner, reference = DynamicWeightAverage(temperature, window), DWAReference(3, temperature, window)
    combiner.bind(["qa", "summary", "anger"])
    generator = torch.Generator().manual_seed(0)
    for step in range(60):
        tasks = [[0, 1, 2], [2, 0], [1, 2], [0]][step % 4]
        losses = torch.rand(len(tasks), generator=generator, dtype=torch.float64) + 0.1
        found = combiner.weights(None, losses, tasks=tasks)
        torch.testing.assert_close(found, reference.step(losses, tasks), rtol=1e-9, atol=0)


def test_it_equals_torchjd_with_an_epoch_for_a_window():
    combiner, peer = DynamicWeightAverage(window=4), DWA()
    generator = torch.Generator().manual_seed(1)
    for step in range(24):
        losses = torch.rand(5, generator=generator, dtype=torch.float64) + 0.1
        leaf = losses.clone().requires_grad_()
        peer(leaf).backward()
        if step % 4 == 3:
            peer.step()
        torch.testing.assert_close(combiner.weights(None, losses), leaf.grad, rtol=1e-9, atol=0)


def test_dwa_weights_by_hand():
    combiner = DynamicWeightAverage(temperature=1.0, window=2)
    for losses in ([2.0, 1.0], [4.0, 1.0], [1.0, 1.0], [2.0, 3.0]):  # means 3, 1 and then 1.5, 2
        assert combiner.weights(None, torch.tensor(losses)).tolist() == [1.0, 1.0]
    slow = 2 / (1 + math.exp(0.5 - 2.0))
    found = combiner.weights(None, torch.tensor([9.0, 9.0], dtype=torch.float64)).tolist()
    assert found == pytest.approx([2 - slow, slow], rel=1e-12)


def test_the_slow_task_gets_more_and_the_sum_is_the_number_of_tasks():
    combiner = DynamicWeightAverage(temperature=0.1, window=1)
    for step in range(5):
        weights = combiner.weights(None, torch.tensor([0.5**step, 0.9**step, 1.0]))
    assert weights[0] < weights[1] < weights[2]
    assert weights.sum().item() == pytest.approx(3.0)


def test_a_window_at_loss_zero_counts_as_unchanged():
    combiner = DynamicWeightAverage(window=1)
    for losses in ([0.0, 1.0], [0.0, 1.0], [5.0, 1.0]):
        assert combiner.weights(None, torch.tensor(losses)).tolist() == [1.0, 1.0]
    assert combiner.weights(None, torch.tensor([1e300, 1.0], dtype=torch.float64)).isfinite().all()
    assert combiner.weights(None, torch.tensor([1e-300, 1.0], dtype=torch.float64)).isfinite().all()


def test_dwa_arguments_and_losses_are_checked():
    with pytest.raises(ValueError, match="`temperature` must be a number above 0, got -1"):
        DynamicWeightAverage(temperature=-1)
    for window in (0, 2.5, True):
        with pytest.raises(ValueError, match="`window` must be a whole number of at least 1, got"):
            DynamicWeightAverage(window=window)
    with pytest.raises(ValueError, match="loss of task `1` must be at least 0 for DynamicWeightAverage, got -1"):
        DynamicWeightAverage().weights(None, torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"`DynamicWeightAverage` needs `losses` \[tasks\], got None"):
        DynamicWeightAverage().weights(torch.eye(2))
