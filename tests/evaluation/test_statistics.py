"""Δm and the spread over seeds."""

from math import isnan

import pytest

from mtl_opt.errors import InputError
from mtl_opt.evaluation import delta_m, mean_and_std


def test_delta_m_averages_relative_changes_with_their_sign():
    # +20 % accuracy is +20, +10 % loss is -10.
    result = delta_m({"acc": 0.6, "loss": 1.1}, {"acc": 0.5, "loss": 1.0}, {"acc": True, "loss": False})
    assert result == pytest.approx(5.0)


def test_delta_m_of_the_baselines_is_zero():
    values = {"a": 0.3, "b": 2.0}
    assert delta_m(values, values, {"a": True, "b": False}) == 0


def test_better_is_positive_for_negative_metrics_too():
    assert delta_m({"log_likelihood": -1.0}, {"log_likelihood": -2.0}, {"log_likelihood": True}) == 50


def test_delta_m_does_not_depend_on_the_unit():
    directions = {"a": True, "b": False}
    small = delta_m({"a": 0.6, "b": 1.0}, {"a": 0.5, "b": 2.0}, directions)
    assert delta_m({"a": 60, "b": 1.0}, {"a": 50, "b": 2.0}, directions) == pytest.approx(small)


def test_delta_m_against_a_baseline_of_zero_is_nan():
    assert isnan(delta_m({"a": 0.5, "b": 0.5}, {"a": 0.0, "b": 0.5}, {"a": True, "b": True}))


def test_unused_baselines_and_directions_do_not_count():
    assert delta_m({"a": 2.0}, {"a": 1.0, "b": 0.0}, {"a": True, "b": True}) == 100


@pytest.mark.parametrize(
    ("metrics", "baselines", "directions", "message"),
    [
        ({}, {}, {}, "at least one metric"),
        ({"a": 1.0}, {"b": 1.0}, {"a": True}, "no baseline for the metric `a`; given: b"),
        ({"a": 1.0}, {"a": 1.0}, {}, "no direction for the metric `a`; given: none"),
    ],
)
def test_incomplete_input_is_refused(metrics, baselines, directions, message):
    with pytest.raises(InputError, match=message):
        delta_m(metrics, baselines, directions)


def test_standard_deviation_is_that_of_a_sample():
    assert mean_and_std([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))


def test_one_value_has_no_standard_deviation():
    mean, deviation = mean_and_std([0.5])
    assert mean == 0.5
    assert isnan(deviation)


def test_no_value_is_refused():
    with pytest.raises(InputError, match="at least one value"):
        mean_and_std([])
