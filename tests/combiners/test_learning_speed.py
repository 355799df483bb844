"""Learning speed weights tasks by how far they have come."""

import math

import pytest
import torch
from references.losses_reference import LearningSpeedReference

from mtl_opt.combiners import LearningSpeed


@pytest.mark.parametrize(("temperature", "window"), [(1.0, 1), (0.2, 3), (1.0, 20)])
def test_learning_speed_equals_the_reference_when_tasks_come_and_go(temperature, window):
    combiner, reference = LearningSpeed(temperature, window), LearningSpeedReference(3, temperature, window)
    combiner.bind(["qa", "summary", "anger"])
    generator = torch.Generator().manual_seed(0)
    for step in range(80):
        tasks = [[0, 1, 2], [2, 0], [1, 2], [0]][step % 4]
        losses = torch.rand(len(tasks), generator=generator, dtype=torch.float64) + 0.1
        found = combiner.weights(None, losses, tasks=tasks)
        torch.testing.assert_close(found, reference.step(losses, tasks), rtol=1e-9, atol=0)


def test_learning_speed_weights_by_hand():
    combiner = LearningSpeed(temperature=0.5, window=2)
    for losses in ([2.0, 1.0], [4.0, 1.0]):
        assert combiner.weights(None, torch.tensor(losses)).tolist() == [0.5, 0.5]
    found = combiner.weights(None, torch.tensor([2.0, 4.0], dtype=torch.float64))  # means 3 and 2.5 against 3 and 1
    slow = 1 / (1 + math.exp((0.0 - 1.5) / 0.5))
    assert found.tolist() == pytest.approx([1 - slow, slow], rel=1e-12)


def test_the_slow_task_gets_more_and_the_sum_is_one():
    combiner = LearningSpeed(window=2)
    for step in range(30):
        weights = combiner.weights(None, torch.tensor([0.8**step, 0.98**step, 1.0]))
    assert weights[0] < weights[1] < weights[2]
    assert weights.sum().item() == pytest.approx(1.0)


def test_learning_speed_does_not_depend_on_the_unit_of_a_loss():
    one, other = LearningSpeed(window=3), LearningSpeed(window=3)
    unit = torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)
    for step in range(10):
        losses = torch.tensor([0.5, 0.8, 0.9], dtype=torch.float64) ** step
        torch.testing.assert_close(one.weights(None, unit * losses), other.weights(None, losses))


def test_a_start_at_zero_counts_as_unchanged_and_extremes_stay_finite():
    combiner = LearningSpeed(window=1)
    for losses in ([0.0, 1.0], [0.0, 1.0], [5.0, 1.0]):
        assert combiner.weights(None, torch.tensor(losses)).tolist() == [0.5, 0.5]
    for losses in ([1e300, 1e300], [1e-300, 1e-300]):
        assert combiner.weights(None, torch.tensor(losses, dtype=torch.float64)).isfinite().all()


def test_learning_speed_arguments_and_losses_are_checked():
    with pytest.raises(ValueError, match="`temperature` must be a number above 0, got 0"):
        LearningSpeed(temperature=0)
    with pytest.raises(ValueError, match="`window` must be a whole number of at least 1, got 0"):
        LearningSpeed(window=0)
    with pytest.raises(ValueError, match="loss of task `1` must be at least 0 for LearningSpeed, got -1"):
        LearningSpeed().weights(None, torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"`LearningSpeed` needs `losses` \[tasks\], got None"):
        LearningSpeed().weights(torch.eye(2))
