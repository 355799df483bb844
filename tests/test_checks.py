"""Values out of range are refused in one sentence with name, rule and value."""

import pytest
import torch

from mtl_opt.checks import (
    at_least,
    choice,
    either,
    flag,
    fraction,
    mapping,
    name_list,
    named,
    names,
    number,
    one_of,
    positive,
    steps,
    text,
    whole,
    whole_numbers,
)
from mtl_opt.errors import InputError


@pytest.mark.parametrize(
    ("check", "value", "wanted"),
    [
        (whole(1), "3", 3),
        (number(0), "1e-4", 1e-4),  # YAML reads it as a text
        (number(0, 1), 1, 1.0),
        (steps, 0.5, 0.5),
        (steps, 20, 20),
        (one_of(4, 8), 4, 4),
        (choice("lora", "full"), "full", "full"),
        (text, "投诉", "投诉"),
        (flag, False, False),
        (mapping, {1: 2}, {"1": 2}),
        (names, "a, b", ["a", "b"]),
        (whole_numbers(0, 9), [3, 1], [3, 1]),
        (whole_numbers(0, 9), 3, [3]),
        (either(whole(0), choice("none")), "none", "none"),
        (name_list, [], []),
        (name_list, "a, a", ["a", "a"]),
    ],
)
def test_what_fits_comes_back_in_its_kind(check, value, wanted):
    assert check("key", value) == wanted


@pytest.mark.parametrize(
    ("check", "value", "sentence"),
    [
        (whole(1), 2.5, "`key` must be a whole number, got 2.5."),
        (whole(1), 0, "`key` must be at least 1, got 0."),
        (number(0, 1), 2, "`key` must be at least 0 and at most 1, got 2.0."),
        (number(0, above=True), 0, "`key` must be greater than 0, got 0."),
        (number(0), float("nan"), "`key` must be a number, got nan."),
        (number(0), True, "`key` must be a number, got True."),
        (one_of(4, 8), 5, "`key` must be 4 or 8, got 5."),
        (text, " ", "`key` must be a non-empty text, got ' '."),
        (flag, 1, "`key` must be true or false, got 1."),
        (mapping, [], "`key` must be a mapping `name: value`, got []."),
        (names, [], "`key` must be a list of names, got []."),
        (name_list, ["a", 1], "`key` must be a list of names, got ['a', 1]."),
        (names, "a, a", "`key` names something twice: a, a."),
        (whole_numbers(0, 9), [1, 1], "`key` must be different whole numbers, got [1, 1]."),
        (either(whole(0), choice("none")), "some", "`key` must be a whole number, got 'some'."),
    ],
)
def test_what_does_not_fit_is_one_sentence(check, value, sentence):
    with pytest.raises(InputError) as error:
        check("key", value)
    assert str(error.value) == sentence


def test_an_unknown_name_shows_the_nearest():
    with pytest.raises(InputError, match="Did you mean `full`"):
        choice("lora", "full")("key", "ful")


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_a_rate_that_is_not_positive_is_refused(value):
    with pytest.raises(ValueError, match="`lr` must be a number above 0, got"):
        positive("lr", value)


@pytest.mark.parametrize("value", [1, 2.0, "3", True])
def test_what_is_no_whole_number_or_too_small_is_refused(value):
    with pytest.raises(ValueError, match="`x` must be a whole number of at least 2, got"):
        at_least("x", value, 2)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="`beta` must be at least 0 and below 1, got"):
        fraction("beta", value)


@pytest.mark.parametrize("value", ["nearest", None, 1])
def test_a_name_that_is_not_allowed_is_refused(value):
    with pytest.raises(ValueError, match="`kind` must be one of near, far, got"):
        named("kind", value, ("near", "far"))


def test_an_argument_that_is_allowed_comes_back():
    assert positive("lr", 2) == positive("lr", torch.tensor(2)) == 2.0
    assert positive("lr", 0, zero=True) == 0.0
    assert fraction("beta", 0) == 0.0
    assert at_least("x", 2, 2) == 2
    assert named("kind", "far", ("near", "far")) == "far"
