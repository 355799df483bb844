"""Metrics of free texts. Chinese, which has no spaces between words, is split into characters as in sacreBLEU."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any
from unicodedata import category, normalize

IDEOGRAPHS = r"\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters that are written without blanks between words: Chinese, and the Japanese that stands with it."""

CJK = re.compile(f"[{IDEOGRAPHS}]")
WORDS = re.compile(rf"[{IDEOGRAPHS}]|(?:(?![{IDEOGRAPHS}_])\w)+")
ARTICLES = ("a", "an", "the")


def normalise_answer(text: Any) -> str:
    """Normalise an answer for comparison: Unicode NFC, no white space at the ends."""
    return normalize("NFC", str(text)).strip()


def words(text: str) -> list[str]:
    """Split a text into words, ideographs one by one.

    For ASCII the words are those of rouge-score's own tokenizer: runs of letters and digits, in lower case. Letters
    of all other scripts, which that one leaves out, are kept.

    Examples:
        >>> words("退款3天到账, OK!")
        ['退', '款', '3', '天', '到', '账', 'ok']
    """
    return WORDS.findall(normalize("NFC", text).lower())


def token_f1(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Compute the F1 of the words that an answer shares with its reference, averaged over answers.

    Texts are normalised as in SQuAD: lower case, no punctuation, no English articles. Two empty texts are equal.

    Examples:
        >>> token_f1(["The red shoe"], ["red shoes"])
        0.5

    References:
        Rajpurkar et al., `SQuAD: 100,000+ Questions for Machine Comprehension of Text
        <https://arxiv.org/abs/1606.05250>`_, EMNLP 2016.
    """
    return fmean(_token_f1(p, r) for p, r in zip(predictions, references, strict=True))


def _token_f1(prediction: str, reference: str) -> float:
    """Compute the F1 of one answer."""
    found, wanted = _squad_words(prediction), _squad_words(reference)
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))


def _squad_words(text: str) -> list[str]:
    """Normalise as SQuAD does: punctuation is deleted (so `don't` stays one word), then articles."""
    kept = "".join(c for c in normalize("NFC", text).lower() if category(c)[0] != "P" and c not in "$+<=>^`|~")
    spaced = CJK.sub(lambda match: f" {match.group()} ", kept)
    return [word for word in spaced.split() if word not in ARTICLES]


class _Words:
    """Tokenize texts for rouge-score; the base class of its tokenizers has no other method."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        """Split a text into words."""
        return words(text)


def rouge(kind: str) -> Callable[[Sequence[str], Sequence[str]], float]:
    """Make a ROUGE metric, without stemming.

    References:
        Lin, `ROUGE: A Package for Automatic Evaluation of Summaries <https://aclanthology.org/W04-1013>`_, 2004.
    """

    def compute(predictions: Sequence[str], references: Sequence[str]) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([kind], tokenizer=_Words())
        scores = [scorer.score(r, p)[kind].fmeasure for p, r in zip(predictions, references, strict=True)]
        return fmean(scores)

    return compute


def bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Compute corpus BLEU with sacreBLEU's defaults.

    References:
        Post, `A Call for Clarity in Reporting BLEU Scores <https://arxiv.org/abs/1804.08771>`_, WMT 2018.
    """
    from sacrebleu import corpus_bleu

    tokenizer = "zh" if any(CJK.search(text) for text in references) else "13a"
    return corpus_bleu(list(predictions), [list(references)], tokenize=tokenizer).score / 100


def chrf(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Compute corpus chrF2 with sacreBLEU's defaults; it is made of characters and needs no words.

    References:
        Popović, `chrF: character n-gram F-score for automatic MT evaluation <https://aclanthology.org/W15-3049>`_,
        WMT 2015.
    """
    from sacrebleu import corpus_chrf

    return corpus_chrf(list(predictions), [list(references)]).score / 100
