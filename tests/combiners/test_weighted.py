"""Weighted uses the numbers it is given, by name or in order."""

import pytest
import torch

from mtl_opt.combiners import Weighted

NAMES = ["qa", "投诉", "anger"]


def test_weights_are_looked_up_by_name():
    combiner = Weighted({"anger": 3.0, "qa": 1.0, "投诉": 0.5})
    combiner.bind(NAMES)
    assert combiner.weights(torch.eye(3)).tolist() == [1.0, 0.5, 3.0]
    assert combiner.weights(torch.eye(2), tasks=[2, 1]).tolist() == [3.0, 0.5]


def test_weights_may_come_in_task_order():
    assert Weighted([1.0, 0.5, 3.0]).weights(torch.eye(3)).tolist() == [1.0, 0.5, 3.0]


def test_the_default_is_one():
    assert Weighted().weights(torch.eye(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("given", [[1.0, -1.0], [1.0, torch.inf], {"qa": torch.nan}, [0.0, 0.0], {"qa": 0}, {}])
def test_weights_that_make_no_update_or_an_infinite_one_are_refused(given):
    with pytest.raises(ValueError, match="`task_weights` must be finite, at least 0 and not all 0, got"):
        Weighted(given)


def test_names_must_be_those_of_the_tasks():
    combiner = Weighted({"qa": 1.0, "summary": 2.0})
    for _ in range(2):
        with pytest.raises(ValueError, match=r"must name the tasks \['qa', '投诉', 'anger'\], got \['qa', 'summary'\]"):
            combiner.bind(NAMES)


@pytest.mark.parametrize("given", [[1.0, 2.0], []])
def test_there_must_be_one_weight_per_task(given):
    with pytest.raises(ValueError, match=f"`task_weights` must be 3 numbers, one per task, got {len(given)}"):
        Weighted(given).bind(NAMES)
