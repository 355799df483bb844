"""Scalars of one step and their average over a window."""

from dataclasses import replace
from math import isnan, nan

import pytest
import torch
from torch.testing import assert_close

from mtl_opt.monitor.events import StepEvent
from mtl_opt.monitor.log_numbers import EventWindow, distinct, scalar_keys, scalars

TASKS = ["qa", "摘要", "angry"]


def event(step=1, losses=(1.0, 2.0, 6.0), counts=(4, 5, 6), jacobian=None, weights=(0.5, 0.3, 0.2), rate=1e-3):
    jacobian = torch.tensor([[3.0, 4.0], [-4.0, 3.0], [-3.0, -4.0]]) if jacobian is None else jacobian
    return StepEvent(
        step=step,
        losses=torch.tensor(losses),
        counts=torch.tensor(counts),
        gramian=jacobian @ jacobian.T,
        weights=None if weights is None else torch.tensor(weights),
        learning_rate=rate,
        grad_norm=2.5,
    )


def without_second(**changes):
    jacobian = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0]])
    settings = {"losses": (1.0, nan, 6.0), "counts": (4, 0, 6), "jacobian": jacobian, "weights": (0.8, 0.0, 0.2)}
    return event(**{**settings, **changes})


def test_scalars_of_a_full_step():
    expected = {
        "loss": 3.0,
        "loss_qa": 1.0,
        "loss_摘要": 2.0,
        "loss_angry": 6.0,
        "grad_norm": 2.5,
        "grad_norm_qa": 5.0,
        "grad_norm_摘要": 5.0,
        "grad_norm_angry": 5.0,
        "grad_cos_qa_摘要": 0.0,
        "grad_cos_qa_angry": -1.0,
        "grad_cos_摘要_angry": 0.0,
        "conflict_rate": 1 / 3,
        "weight_qa": 0.5,
        "weight_摘要": 0.3,
        "weight_angry": 0.2,
        "pull_qa": 0.5,
        "pull_摘要": 0.25,
        "pull_angry": 0.25,
        "learning_rate": 1e-3,
    }
    result = scalars(replace(event(), scales=torch.tensor([2.0, 1.0, 1.0])), TASKS)
    assert list(result) == list(expected) == scalar_keys(TASKS)
    assert result == pytest.approx(expected)


def test_everything_of_an_absent_task_is_nan_and_the_loss_is_the_mean_of_the_others():
    result = scalars(without_second(), TASKS)
    undefined = {key for key, value in result.items() if isnan(value)}
    assert undefined == {key for key in result if "摘要" in key}
    assert result["loss"] == 3.5
    assert result["conflict_rate"] == 1.0


def test_a_present_task_with_zero_gradient_has_norm_zero_and_no_cosine():
    jacobian = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0]])
    result = scalars(event(jacobian=jacobian), TASKS)
    assert result["grad_norm_摘要"] == 0
    assert isnan(result["grad_cos_qa_摘要"])


def test_without_weights_there_are_no_weight_keys():
    result = scalars(event(weights=None), TASKS)
    missing = [f"{key}_{task}" for key in ("weight", "pull") for task in TASKS]  # nor pull where there are no scales
    assert [key for key in scalar_keys(TASKS) if key not in result] == missing


def test_one_task_has_neither_cosines_nor_a_conflict_rate():
    one = event(losses=(2.0,), counts=(4,), jacobian=torch.tensor([[3.0, 4.0]]), weights=(1.0,))
    keys = ["loss", "loss_qa", "grad_norm", "grad_norm_qa", "weight_qa", "learning_rate"]
    assert list(scalars(one, ["qa"])) == keys


def test_pairs_whose_names_join_to_one_text_keep_their_own_keys():
    keys = scalar_keys(["a", "b_c", "a_b", "c"])
    assert len(set(keys)) == len(keys)
    assert {"grad_cos_a_b_c", "grad_cos_a_b_c_2"} <= set(keys)


def test_distinct_does_not_run_into_names_that_already_carry_a_number():
    assert distinct(["a", "a", "a_2", "a"]) == ["a", "a_2", "a_2_2", "a_3"]


def test_window_averages_over_the_steps_in_which_a_value_is_defined():
    window = EventWindow(TASKS)
    window.add(event(losses=(1.0, 2.0, 6.0), rate=1e-3))
    window.add(without_second(losses=(3.0, nan, 8.0), rate=5e-4))
    averages, cosines = window.read_and_clear()
    assert averages["loss"] == pytest.approx((3.0 + 5.5) / 2)
    assert averages["loss_qa"] == 2.0
    assert averages["loss_摘要"] == 2.0
    assert averages["weight_qa"] == pytest.approx(0.65)
    assert averages["weight_摘要"] == pytest.approx(0.3)
    assert averages["conflict_rate"] == pytest.approx((1 / 3 + 1) / 2)
    assert averages["learning_rate"] == 5e-4
    assert_close(cosines, torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]))


def test_window_leaves_out_what_was_never_defined():
    window = EventWindow(TASKS)
    window.add(without_second(weights=None))
    averages, cosines = window.read_and_clear()
    assert not [key for key in averages if "摘要" in key or key.startswith("weight")]
    assert cosines[1].isnan().all()
    assert cosines[:, 1].isnan().all()
    assert_close(cosines[0, 2].item(), -1.0)


def test_weights_are_averaged_over_the_steps_that_have_them():
    window = EventWindow(TASKS)
    window.add(event(weights=None))
    window.add(event(weights=(0.2, 0.2, 0.6)))
    assert window.read_and_clear()[0]["weight_angry"] == pytest.approx(0.6)


def test_reading_starts_a_new_window():
    window = EventWindow(TASKS)
    window.add(event())
    window.read_and_clear()
    averages, cosines = window.read_and_clear()
    assert averages == {}
    assert cosines.shape == (3, 3)
    assert cosines.isnan().all()


def test_average_of_a_window_of_one_step_is_that_step():
    window = EventWindow(TASKS)
    window.add(event())
    assert window.read_and_clear()[0] == pytest.approx(scalars(event(), TASKS))


def test_notes_are_counted_by_steps_until_they_are_taken():
    window = EventWindow(TASKS)
    for notes in (("a.", "b."), (), ("a.",)):
        window.add(replace(event(), notes=notes))
    window.read_and_clear()
    assert window.take_notes() == {"a.": 2, "b.": 1}
    assert window.take_notes() == {}
