"""Paired statistics over seeds: is a difference between two methods more than the seeds?"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from mtl_opt.errors import InputError

MIN_SEEDS = 4
"""Fewest paired seeds for which a test is made at all."""

LEVEL = 0.95
"""Coverage of all intervals; 1 − LEVEL is the level of all tests."""


def bootstrap_interval(
    values: Sequence[float], *, level: float = LEVEL, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Compute a percentile bootstrap interval of a mean.

    Paired, where the values are differences at the same seeds. The same `seed` gives the same interval. With a handful
    of values such an interval is too narrow (it covers the truth less often than `level` says), which no amount of
    resampling repairs.

    Args:
        values: Finite numbers, one per seed.
        level: Coverage, in (0, 1).
        resamples: Number of samples drawn with replacement.
        seed: Seed of the drawing.

    Returns:
        Lower and upper end; None for fewer than two values.

    An `InputError` says that a value is not finite.

    Examples:
        >>> bootstrap_interval([1.0, 1.0, 1.0])
        (1.0, 1.0)

    References:
        Efron, `Bootstrap Methods: Another Look at the Jackknife <https://doi.org/10.1214/aos/1176344552>`_, The Annals
        of Statistics 7, 1979.
    """
    numbers = _finite(values)
    if len(numbers) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(numbers), size=(resamples, len(numbers)))
    means = numbers[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_test(differences: Sequence[float]) -> float | None:
    """Test whether the mean of paired differences is zero: Student's paired t-test, two-sided.

    Args:
        differences: Finite differences, one per seed.

    Returns:
        The p-value; 1 where all differences are zero, 0 where all are the same other number; None for fewer than
        `MIN_SEEDS` values: a test with one or two degrees of freedom rests on the assumption of normality alone.

    An `InputError` says that a value is not finite.

    Examples:
        >>> round(paired_test([0.1, 0.3, 0.2, 0.4]), 4)
        0.0305

    References:
        Student, `The Probable Error of a Mean <https://doi.org/10.1093/biomet/6.1.1>`_, Biometrika 6, 1908.
    """
    numbers = _finite(differences)
    if len(numbers) < MIN_SEEDS:
        return None
    if np.ptp(numbers) <= 1e-12 * np.abs(numbers).max():  # rounding is no spread
        return 0.0 if numbers[0] else 1.0
    return float(stats.ttest_1samp(numbers, 0.0).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for the number of comparisons, after Holm: the family-wise error stays below the level.

    `p̃_(i) = max_{j ≤ i} min(1, (m − j + 1) p_(j))` over the sorted p-values.

    Args:
        p_values: The p-values of one family; None where no test was made, which is not counted.

    Returns:
        The adjusted p-values, in the order given.

    Examples:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]

    References:
        Holm, `A Simple Sequentially Rejective Multiple Test Procedure <https://www.jstor.org/stable/4615733>`_,
        Scandinavian Journal of Statistics 6, 1979.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = largest
    return adjusted


def _finite(values: Sequence[float]) -> np.ndarray:
    """Refuse NaN and infinity: an average over them says nothing."""
    for value in values:
        if not math.isfinite(value):
            raise InputError(f"Statistics over seeds need finite values, got {value}.")
    return np.asarray(values, dtype=np.float64)
