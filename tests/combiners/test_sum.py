"""Sum is plain joint training."""

import torch

from mtl_opt.combiners import Sum


def test_the_golden_sum(golden):
    assert Sum()(golden).tolist() == [2, 2, 2]


def test_every_present_task_has_weight_one():
    combiner = Sum()
    combiner.bind(["qa", "summary", "anger"])
    assert combiner.weights(torch.eye(2), tasks=[2, 0]).tolist() == [1, 1]
