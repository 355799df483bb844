"""What methods of the losses share."""

import numpy as np
import pytest
import torch

from mtl_opt.combiners import LogSum
from mtl_opt.combiners.losses import (
    check_finite,
    count_of,
    needed_losses,
    non_negative_losses,
    numbers_per_task,
    shares,
    softmax,
)


def test_losses_are_taken_above_their_smallest_value():
    combiner = LogSum()
    step = combiner.enter(None, torch.tensor([2.0, -1.0]), None)
    assert needed_losses(combiner, step).tolist() == [2.0, -1.0]
    assert non_negative_losses(combiner, step, np.array([0.5, -1.0])).tolist() == [1.5, 0.0]
    with pytest.raises(ValueError, match="loss of task `1` must be at least 0 for LogSum, got -1"):
        non_negative_losses(combiner, step)


def test_shares_add_up_to_one_at_any_scale():
    values = np.array([3.0, -2.0, 0.5])
    np.testing.assert_allclose(softmax(values, 2.0), torch.softmax(torch.tensor(values) / 2, 0).numpy())
    for scale in (1e-300, 1e15, 1e300):
        for temperature in (1e-300, 1.0, 1e300):
            assert softmax(scale * values, temperature).sum() == pytest.approx(1.0)
    np.testing.assert_allclose(shares(np.array([1e308, 1e308])), [0.5, 0.5])


def test_numbers_are_given_for_all_tasks_by_name_or_in_order():
    tasks = ["qa", "投诉"]
    assert numbers_per_task("x", 2, tasks).tolist() == [2.0, 2.0]
    assert numbers_per_task("x", [1, 2.5], tasks).tolist() == [1.0, 2.5]
    assert numbers_per_task("x", {"投诉": 1, "qa": 3}, tasks).tolist() == [3.0, 1.0]


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="`x` must be 2 numbers, one per task, got 1"):
        numbers_per_task("x", [1.0], ["qa", "ner"])
    with pytest.raises(ValueError, match=r"`x` must name the tasks \['qa'\], got \['ner'\]"):
        numbers_per_task("x", {"ner": 1.0}, ["qa"])
    for given in (np.inf, [0.0, np.nan], {"qa": -np.inf}):
        with pytest.raises(ValueError, match="`x` must be finite, got"):
            check_finite("x", given)
    for value in (1, 2.0, "3", True):
        with pytest.raises(ValueError, match="`x` must be a whole number of at least 2, got"):
            count_of("x", value, 2)
