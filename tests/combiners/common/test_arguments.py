"""Arguments name tasks by name or by index; what does not fit is refused with name, rule and value."""

import numpy as np
import pytest

from mtl_opt.combiners.common.arguments import check_preference, finite_numbers, numbers_per_task, task_indices


@pytest.mark.parametrize("given", [np.inf, [0.0, np.nan], {"qa": -np.inf}])
def test_a_number_that_is_not_finite_is_refused(given):
    with pytest.raises(ValueError, match="`x` must be finite, got"):
        finite_numbers("x", given)


@pytest.mark.parametrize("given", [[1.0, 0.0], {"qa": -1.0}, [float("nan")], [float("inf")]])
def test_a_preference_that_is_not_positive_and_finite_is_refused(given):
    with pytest.raises(ValueError, match="`preference` must be positive finite numbers, got"):
        check_preference(given)


def test_what_is_allowed_comes_back():
    assert finite_numbers("x", {"qa": 1, "投诉": -2}).tolist() == [1, -2]
    assert finite_numbers("x", 3).tolist() == 3
    check_preference(None)
    check_preference({"qa": 0.5})


def test_names_and_indices_may_be_mixed_and_keep_their_order():
    assert task_indices("main", ["投诉", 0], ["qa", "anger", "投诉"]) == [2, 0]
    assert task_indices("primary", "anger", ["qa", "anger"]) == [1]
    assert task_indices("primary", 1, ["qa", "anger"]) == [1]


def test_a_number_written_as_a_name_is_a_name():
    assert task_indices("primary", "0", ["1", "0"]) == [1]


def test_numbers_are_given_for_all_tasks_by_name_or_in_order():
    tasks = ["qa", "投诉"]
    assert numbers_per_task("x", 2, tasks).tolist() == [2.0, 2.0]
    assert numbers_per_task("x", [1, 2.5], tasks).tolist() == [1.0, 2.5]
    assert numbers_per_task("x", {"投诉": 1, "qa": 3}, tasks).tolist() == [3.0, 1.0]


def test_numbers_that_do_not_fit_the_tasks_are_refused():
    with pytest.raises(ValueError, match="`x` must be 2 numbers, one per task, got 1"):
        numbers_per_task("x", [1.0], ["qa", "ner"])
    with pytest.raises(ValueError, match=r"`x` must name the tasks \['qa'\], got \['ner'\]"):
        numbers_per_task("x", {"ner": 1.0}, ["qa"])


def test_a_task_named_twice_is_refused():
    with pytest.raises(ValueError, match="`main` must be at least one task, each once"):
        task_indices("main", [0, "qa"], ["qa", "anger"])
