"""Δm and the spread over seeds; intervals and tests against literal versions, closed forms and SciPy."""

from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import statistics_reference as reference
from scipy import stats

from mtl_opt.errors import InputError
from mtl_opt.evaluation import bootstrap_interval, delta_m, holm, mean_and_std, paired_test


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


def test_the_bootstrap_is_the_literal_one():
    values = [1.0, 4.0, -2.0, 0.5, 3.0]
    wanted = reference.bootstrap(values, level=0.9, resamples=500, seed=3)
    assert bootstrap_interval(values, level=0.9, resamples=500, seed=3) == pytest.approx(wanted)


def test_the_bootstrap_is_that_of_scipy_up_to_chance():
    values = np.random.default_rng(0).normal(2.0, 1.0, 12)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert bootstrap_interval(values.tolist(), resamples=20_000) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_same_values_give_the_same_interval_and_one_value_has_none():
    values = [0.1, 0.7, 0.3]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval([1.0]) is None
    assert bootstrap_interval([]) is None


def test_the_t_test_is_the_closed_form():
    for values in ([0.1, 0.3, 0.2, 0.4], [1.0, -1.0, 2.0, 0.5], [5.0, 5.1, 4.9, 5.0]):
        assert paired_test(values) == pytest.approx(reference.t_test_three_degrees(values))


def test_the_t_test_of_differences_is_scipy_s_paired_test():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=9), rng.normal(size=9)
    assert paired_test((one - two).tolist()) == pytest.approx(stats.ttest_rel(one, two).pvalue)


@pytest.mark.parametrize(("values", "p"), [([0.0] * 5, 1.0), ([0.3] * 5, 0.0), ([0.1 + 0.2, 0.3, 0.3, 0.3], 0.0)])
def test_differences_without_spread(values, p):
    assert paired_test(values) == p


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_with_few_seeds_no_test_is_made(number):
    assert paired_test([1.0, 2.0, 3.0][:number]) is None


def test_values_that_are_not_finite_are_refused():
    for call in (bootstrap_interval, paired_test):
        with pytest.raises(InputError, match="nan"):
            call([1.0, 2.0, float("nan"), 3.0, 4.0])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None, 0.02, None]) == [None, 0.02, None]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_adjusted_values_decide_as_holm_s_procedure(p_values, level):
    adjusted = holm(p_values)
    near = any(abs(p - level) < 1e-12 for p in adjusted)  # where rounding decides
    assert near or {i for i, p in enumerate(adjusted) if p <= level} == reference.holm_decisions(p_values, level)


def test_under_the_null_the_family_is_rejected_in_at_most_the_level():
    rng = np.random.default_rng(0)
    families = [holm([paired_test(row) for row in rng.normal(size=(4, 6)).tolist()]) for _ in range(400)]
    wrong = sum(min(family) <= 0.05 for family in families) / 400
    assert wrong <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
