"""Arguments name tasks by name or by index."""

import pytest

from mtl_opt.combiners.names import task_indices, task_preference


def test_names_and_indices_may_be_mixed_and_keep_their_order():
    assert task_indices("main", ["投诉", 0], ["qa", "anger", "投诉"]) == [2, 0]
    assert task_indices("primary", "anger", ["qa", "anger"]) == [1]
    assert task_indices("primary", 1, ["qa", "anger"]) == [1]


def test_a_number_written_as_a_name_is_a_name():
    assert task_indices("primary", "0", ["1", "0"]) == [1]


def test_a_default_is_for_every_task():
    assert task_preference(None, 0.5, ["qa", "anger"]).tolist() == [0.5, 0.5]
    assert task_preference({"anger": 2, "qa": 1}, 0.5, ["qa", "anger"]).tolist() == [1, 2]


def test_a_task_named_twice_is_refused():
    with pytest.raises(ValueError, match="`main` must be at least one task, each once"):
        task_indices("main", [0, "qa"], ["qa", "anger"])
