"""Arguments out of range are refused with name, rule and value."""

import numpy as np
import pytest

from mtl_opt.combiners.common.arguments import check_preference, count_of, finite_numbers, positive


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_a_rate_that_is_not_positive_is_refused(value):
    with pytest.raises(ValueError, match="`lr` must be a positive number, got"):
        positive("lr", value)


@pytest.mark.parametrize("value", [1, 2.0, "3", True])
def test_what_is_no_whole_number_or_too_small_is_refused(value):
    with pytest.raises(ValueError, match="`x` must be a whole number of at least 2, got"):
        count_of("x", value, 2)


@pytest.mark.parametrize("given", [np.inf, [0.0, np.nan], {"qa": -np.inf}])
def test_a_number_that_is_not_finite_is_refused(given):
    with pytest.raises(ValueError, match="`x` must be finite, got"):
        finite_numbers("x", given)


@pytest.mark.parametrize("given", [[1.0, 0.0], {"qa": -1.0}, [float("nan")], [float("inf")]])
def test_a_preference_that_is_not_positive_and_finite_is_refused(given):
    with pytest.raises(ValueError, match="`preference` must be positive finite numbers, got"):
        check_preference(given)


def test_what_is_allowed_comes_back():
    assert positive("lr", 2) == 2.0
    assert count_of("x", 2, 2) == 2
    assert finite_numbers("x", {"qa": 1, "投诉": -2}).tolist() == [1, -2]
    assert finite_numbers("x", 3).tolist() == 3
    check_preference(None)
    check_preference({"qa": 0.5})
