"""Arguments out of range are refused with name, rule and value."""

import numpy as np
import pytest

from mtl_opt.combiners.common.arguments import check_preference, finite_numbers


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
