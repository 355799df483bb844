"""Metrics of labels against closed forms and against scikit-learn on label numbers."""

import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from mtl_opt.errors import InputError
from mtl_opt.evaluation import check_metrics, score

TRUE = ["生气", "平静", "生气", "平静", "平静", "高兴"]
FOUND = ["生气 ", "生气", "平静", "平静", "平静", "胡说"]


def test_accuracy_is_the_share_of_right_labels():
    assert score(["accuracy"], FOUND, TRUE)["accuracy"] == pytest.approx(3 / 6)


def test_macro_f1_averages_over_the_labels_of_the_references_only():
    # 生气: tp 1, fp 1, fn 1 -> 1/2; 平静: tp 2, fp 1, fn 1 -> 2/3; 高兴: 0. The answer 胡说 makes no fourth class.
    assert score(["f1_macro"], FOUND, TRUE)["f1_macro"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("positive", ["f1_binary=no", "f1_binary"])
def test_binary_f1_is_that_of_the_positive_label(positive):
    true, found = ["yes", "no", "no", "yes", "no"], ["yes", "yes", "no", "never", "no"]
    # yes: tp 1, fp 1, fn 1; no: tp 2, fp 0, fn 1.
    wanted = 2 * 2 / (2 * 2 + 0 + 1) if positive.endswith("no") else 2 * 1 / (2 * 1 + 1 + 1)
    assert score([positive], found, true)["f1_binary"] == pytest.approx(wanted)


def test_matthews_is_the_closed_form_of_a_two_by_two_table():
    true, found = [1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 1]
    tp, fn, tn, fp = 2, 1, 3, 1
    wanted = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert score(["matthews"], found, true)["matthews"] == pytest.approx(wanted)


def test_label_numbers_give_what_scikit_learn_gives_for_them():
    true, found = [0, 1, 2, 2, 1, 10, 10], [0, 2, 2, 1, 1, 10, 0]
    names = ["accuracy", "f1_macro", "matthews", "exact_match"]
    values = score(names, found, true)
    assert values["f1_macro"] == pytest.approx(f1_score(true, found, average="macro"))
    assert values["matthews"] == pytest.approx(matthews_corrcoef(true, found))
    assert values["accuracy"] == values["exact_match"] == pytest.approx(4 / 7)
    assert score(["f1_binary"], [1, 0, 1], [1, 1, 0])["f1_binary"] == pytest.approx(f1_score([1, 1, 0], [1, 0, 1]))


@pytest.mark.parametrize(
    ("names", "references", "words"),
    [
        (["acuracy"], ["a"], ["`tasks.情绪.metrics`", "`accuracy`"]),
        (["f1"], ["a"], ["f1_macro", "token_f1"]),
        (["bleu=4"], ["a"], ["`bleu` takes nothing"]),
        (["bleu", "bleu"], ["a"], ["twice"]),
        (["f1_binary"], ["a", "b"], ["f1_binary=LABEL", "`a`, `b`"]),
        (["f1_binary=c"], ["a", "b"], ["no such label"]),
        (["f1_binary"], ["a", "b", "c"], ["two labels", "3"]),
    ],
)
def test_metrics_that_do_not_fit_are_refused_in_one_sentence(names, references, words):
    with pytest.raises(InputError) as error:
        check_metrics(names, references, "`tasks.情绪.metrics`")
    for word in words:
        assert word in str(error.value)


def test_predictions_and_references_must_pair():
    with pytest.raises(InputError, match="2 predictions and 1 references"):
        score(["accuracy"], ["a", "b"], ["a"])
    with pytest.raises(InputError, match="at least one"):
        score(["rougeL"], [], [])
