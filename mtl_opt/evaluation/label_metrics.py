"""Metrics of predicted labels and of predicted numbers. An answer that is no label is wrong, not left out."""

from collections.abc import Sequence
from math import nan, sqrt
from statistics import fmean
from typing import Any

from mtl_opt.errors import InputError
from mtl_opt.evaluation.text_metrics import normalise_answer

POSITIVE = ("1", "yes", "true", "positive", "是", "有", "正面")
"""Labels that count as the positive one of two where none is named."""


def accuracy(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Compute the share of right labels."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(_normalise(references), _normalise(predictions)))


def f1_macro(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Compute F1 of every label that the references hold, and average them.

    A generated answer that is no such label counts as a miss of the true one; it makes no class of its own, which
    would pull the average down by however many kinds of nonsense were generated.
    """
    from sklearn.metrics import f1_score

    true = _normalise(references)
    return float(f1_score(true, _normalise(predictions), labels=sorted(set(true)), average="macro", zero_division=0))


def f1_binary(predictions: Sequence[Any], references: Sequence[Any], positive: str | None = None) -> float:
    """Compute F1 of the positive label."""
    from sklearn.metrics import f1_score

    label = positive_label(references, positive)
    true, found = _normalise(references), _normalise(predictions)
    return float(f1_score(true, found, labels=[label], average="macro", zero_division=0))


def positive_label(references: Sequence[Any], positive: str | None = None) -> str:
    """Return the positive one of two labels."""
    labels = sorted(set(_normalise(references)))
    shown = ", ".join(f"`{label}`" for label in labels[:5])
    if len(labels) > 2:
        raise InputError(f"`f1_binary` needs two labels, the references have {len(labels)} ({shown}, ...).")
    if positive is not None:
        if normalise_answer(positive) not in labels:
            raise InputError(f"`f1_binary={positive}`: there is no such label among the references ({shown}).")
        return normalise_answer(positive)
    known = [label for label in labels if label.lower() in POSITIVE]
    if len(known) != 1:
        raise InputError(f"`f1_binary` does not know which of {shown} is positive; write `f1_binary=LABEL`.")
    return known[0]


def matthews(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Compute the Matthews correlation coefficient, for any number of labels."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(_normalise(references), _normalise(predictions)))


def _normalise(labels: Sequence[Any]) -> list[str]:
    """Normalise labels, be they numbers of classes or texts."""
    return [normalise_answer(label) for label in labels]


def mean_squared_error(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Average the squared differences.

    Examples:
        >>> mean_squared_error([1.0, 2.0], [1.0, 4.0])
        2.0
    """
    return fmean((p - r) ** 2 for p, r in zip(predictions, references, strict=True))


def pearson(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Compute the linear correlation.

    Examples:
        >>> round(pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 6)
        1.0
    """
    mean_p, mean_r = fmean(predictions), fmean(references)
    pairs = [(p - mean_p, r - mean_r) for p, r in zip(predictions, references, strict=True)]
    spread = sqrt(sum(p * p for p, _ in pairs)) * sqrt(sum(r * r for _, r in pairs))
    return sum(p * r for p, r in pairs) / spread if spread > 0 else nan
