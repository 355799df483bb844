"""Metrics of labels and numbers against references: pure functions of sequences."""

from collections.abc import Sequence
from math import nan, sqrt
from statistics import fmean

from mtl_opt.errors import InputError


def accuracy(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Compute the share of predictions that equal their reference.

    Args:
        predictions: Predicted labels.
        references: True labels, one per prediction.

    Returns:
        A share in [0, 1].

    Examples:
        >>> accuracy(["yes", "no", "no"], ["yes", "no", "yes"])
        0.6666666666666666
    """
    _check("Accuracy", predictions, references)
    return fmean(float(p == r) for p, r in zip(predictions, references, strict=True))


def macro_f1(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Average F1 over all labels that occur among predictions or references, each label counting the same.

    F1 of a label is 2·TP / (2·TP + FP + FN).

    Args:
        predictions: Predicted labels.
        references: True labels, one per prediction.

    Returns:
        A number in [0, 1].

    Examples:
        >>> macro_f1(["yes", "no", "no"], ["yes", "no", "yes"])
        0.6666666666666666
    """
    _check("F1", predictions, references)
    pairs = list(zip(predictions, references, strict=True))
    found = []
    for label in dict.fromkeys([*predictions, *references]):
        hits = sum(p == label == r for p, r in pairs)
        found.append(2 * hits / sum((p == label) + (r == label) for p, r in pairs))
    return fmean(found)


def mean_squared_error(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Average the squared differences.

    Args:
        predictions: Predicted numbers.
        references: True numbers, one per prediction.

    Returns:
        A number of at least 0, in the square of the unit.

    Examples:
        >>> mean_squared_error([1.0, 2.0], [1.0, 4.0])
        2.0
    """
    _check("Mean squared error", predictions, references)
    return fmean((p - r) ** 2 for p, r in zip(predictions, references, strict=True))


def pearson(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Compute the linear correlation.

    Args:
        predictions: Predicted numbers.
        references: True numbers, one per prediction.

    Returns:
        A number in [-1, 1]; NaN where one of the two does not vary.

    Examples:
        >>> pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
        1.0
    """
    _check("Correlation", predictions, references)
    mean_p, mean_r = fmean(predictions), fmean(references)
    pairs = [(p - mean_p, r - mean_r) for p, r in zip(predictions, references, strict=True)]
    spread = sqrt(sum(p * p for p, _ in pairs)) * sqrt(sum(r * r for _, r in pairs))
    return sum(p * r for p, r in pairs) / spread if spread > 0 else nan


def _check(what: str, predictions: Sequence[object], references: Sequence[object]) -> None:
    """Refuse nothing, and lengths that differ."""
    if len(predictions) != len(references) or not predictions:
        raise InputError(
            f"{what} needs one reference per prediction and at least one, got {len(predictions)} predictions and "
            f"{len(references)} references."
        )
