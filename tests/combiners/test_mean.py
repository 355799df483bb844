"""Mean divides by the number of tasks in the step."""

import torch

from mtl_opt.combiners import Mean


def test_the_golden_mean(golden):
    assert Mean()(golden).tolist() == [1, 1, 1]
    assert Mean().weights(golden @ golden.T).tolist() == [0.5, 0.5]


def test_only_present_tasks_are_counted():
    combiner = Mean()
    combiner.bind(["qa", "summary", "anger"])
    assert combiner.weights(torch.eye(2), tasks=[2, 0]).tolist() == [0.5, 0.5]


def test_weights_of_three_tasks_are_exact_in_float64():
    assert torch.equal(Mean().weights(torch.eye(3, dtype=torch.float64)), torch.full((3,), 1 / 3, dtype=torch.float64))
