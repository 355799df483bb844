"""Bad input gets one sentence with the nearest allowed name."""

import pytest

from mtl_opt.errors import InputError, UnknownNameError


def test_bad_input_is_a_value_error():
    assert issubclass(InputError, ValueError)
    assert issubclass(UnknownNameError, InputError)


def test_an_unknown_name_is_answered_with_the_nearest_allowed_one():
    message = str(UnknownNameError("combiner", "pcgard", ["sum", "pcgrad", "mean"]))
    assert message == "Unknown combiner `pcgard`. Did you mean `pcgrad`? Allowed: mean, pcgrad, sum."


def test_a_name_like_no_other_gets_no_guess():
    assert str(UnknownNameError("combiner", "xyz", ["sum"])) == "Unknown combiner `xyz`. Allowed: sum."


@pytest.mark.parametrize(("name", "allowed"), [("投诉抽", ["投诉", "情绪"]), (3, [33, 7]), (None, ["none", "all"])])
def test_names_of_any_kind_are_shown_as_they_are(name, allowed):
    message = str(UnknownNameError("task", name, allowed))
    assert message.startswith(f"Unknown task `{name}`. Did you mean `{allowed[0]}`?")
