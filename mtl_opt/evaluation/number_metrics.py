"""Metrics of predicted numbers against true ones: pure functions of sequences."""

from collections.abc import Sequence
from math import nan, sqrt
from statistics import fmean


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
