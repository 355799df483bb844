"""Exact match."""

import pytest

from mtl_opt.errors import InputError
from mtl_opt.evaluation import exact_match


def test_share_of_equal_texts():
    assert exact_match(["a", "b", "c", "d"], ["a", "x", "c", "y"]) == 0.5


@pytest.mark.parametrize(("prediction", "reference"), [(" yes\n", "yes"), ("cafe\u0301", "caf\u00e9"), ("", " ")])
def test_outer_white_space_and_unicode_composition_do_not_matter(prediction, reference):
    assert exact_match([prediction], [reference]) == 1


@pytest.mark.parametrize(("prediction", "reference"), [("Yes", "yes"), ("a  b", "a b"), ("Ａ", "A"), ("yes.", "yes")])
def test_case_inner_white_space_full_width_and_punctuation_matter(prediction, reference):
    assert exact_match([prediction], [reference]) == 0


def test_chinese_answers_are_compared():
    assert exact_match(["不满意", "满意 "], ["不满意", "满意"]) == 1


def test_unequal_lengths_are_refused():
    with pytest.raises(InputError, match="2 predictions and 1 references"):
        exact_match(["a", "b"], ["a"])


def test_nothing_to_compare_is_refused():
    with pytest.raises(InputError, match="at least one prediction"):
        exact_match([], [])
