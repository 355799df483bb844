"""Metrics of free texts against their libraries and literal forms, in English and in Chinese."""

import math

import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu import corpus_bleu, corpus_chrf

from mtl_opt.evaluation import METRICS, from_loss, score
from mtl_opt.evaluation.text_metrics import words

ENGLISH = ["The refund takes 3 days, doesn't it?", "your order was lost", ""]
ENGLISH_TRUE = ["A refund takes three days.", "Your order was shipped today", "nothing"]
CHINESE = ["退款三天内到账", "您的订单已经发货"]
CHINESE_TRUE = ["退款将在三天内到账。", "订单昨天已发货"]


def test_ascii_words_are_those_of_rouge_score():
    for text in [*ENGLISH, *ENGLISH_TRUE, "snake_case 3.5% e-mail"]:
        assert words(text) == DefaultTokenizer(use_stemmer=False).tokenize(text)


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_of_english_is_the_library_s(kind):
    scorer = RougeScorer([kind])
    wanted = [scorer.score(r, p)[kind].fmeasure for p, r in zip(ENGLISH, ENGLISH_TRUE, strict=True)]
    assert score([kind], ENGLISH, ENGLISH_TRUE)[kind] == pytest.approx(sum(wanted) / 3)


def longest_common(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_rouge_l_of_chinese_is_the_longest_common_run_of_characters():
    wanted = []
    for p, reference in zip(CHINESE, CHINESE_TRUE, strict=True):
        r = reference.rstrip("。")
        common = longest_common(p, r)
        precision, recall = common / len(p), common / len(r)
        wanted.append(2 * precision * recall / (precision + recall))
    assert score(["rougeL"], CHINESE, CHINESE_TRUE)["rougeL"] == pytest.approx(sum(wanted) / 2)
    assert all(0 < value < 1 for value in wanted)


def test_token_f1_by_hand():
    # refund takes 3 days doesnt it | refund takes three days: 3 shared of 6 and 4.
    assert score(["token_f1"], ENGLISH[:1], ENGLISH_TRUE[:1])["token_f1"] == pytest.approx(2 * 3 / 10)
    # 退款三天内到账 (7) | 退款将在三天内到账 (9): 7 shared.
    assert score(["token_f1"], CHINESE[:1], CHINESE_TRUE[:1])["token_f1"] == pytest.approx(2 * 7 / 16)
    assert score(["token_f1"], ["", "", "the"], ["", "x", "a"])["token_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("found", "true", "tokenizer"), [(ENGLISH, ENGLISH_TRUE, "13a"), (CHINESE, CHINESE_TRUE, "zh")]
)
def test_bleu_and_chrf_are_sacrebleu_s(found, true, tokenizer):
    values = score(["bleu", "chrf"], found, true)
    assert values["bleu"] == pytest.approx(corpus_bleu(found, [true], tokenize=tokenizer).score / 100)
    assert values["chrf"] == pytest.approx(corpus_chrf(found, [true]).score / 100)


def test_perfect_answers_get_one():
    names = [
        name
        for name, metric in METRICS.items()
        if metric.compute and name not in {"f1_binary", "matthews", "mse", "pearson"}
    ]
    for texts in (["退款将在三天内到账", "订单昨天已发货"], ["one two three four", "five six seven eight"]):
        assert all(value == pytest.approx(1) for value in score(names, texts, texts).values())


def test_perplexity_is_the_exponential_of_the_loss():
    assert from_loss(["perplexity"], math.log(7))["perplexity"] == pytest.approx(7)
    assert from_loss(["perplexity"], 1e4)["perplexity"] == math.inf
    assert math.isnan(from_loss(["perplexity"], math.nan)["perplexity"])
