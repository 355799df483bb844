"""Statistics over results: Δm against single-task training, spread over seeds, paired intervals and tests."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from statistics import fmean, stdev

import numpy as np
from scipy import stats

from mtl_opt.errors import InputError

MIN_SEEDS = 4
"""Fewest paired seeds for which a test is made at all."""

LEVEL = 0.95
"""Coverage of all intervals; 1 − LEVEL is the level of all tests."""


def delta_m(
    metrics: Mapping[str, float], baselines: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    """Compute Δm, the average relative change against single-task baselines, positive where it is better.

    `Δm = 100 / T · Σ_i (−1)^{l_i} (M_i − b_i) / |b_i|` with `l_i = 1` where lower is better. Each metric counts the
    same, whatever its unit. Departure from the paper: |b_i| in the denominator, so that the sign is right for
    negative metrics (log-likelihoods) too; for positive metrics nothing changes.

    A relative change against a baseline of 0 does not exist. Leaving that metric out would silently average over
    other metrics than in the next row or seed, so the result is NaN and whoever prints it says why.

    Args:
        metrics: Value of each metric of the multi-task run.
        baselines: Value of the same metrics of the single-task runs.
        higher_is_better: Direction of each metric.

    Returns:
        The average change in percent; NaN where a baseline is 0.

    Raises:
        InputError: Where no metric is given, or one has no baseline or direction.

    Examples:
        >>> directions = {"loss": False, "accuracy": True}
        >>> delta_m({"loss": 0.75, "accuracy": 0.75}, {"loss": 1.0, "accuracy": 0.5}, directions)
        37.5

    References:
        Maninis, Radosavovic and Kokkinos, `Attentive Single-Tasking of Multiple Tasks
        <https://arxiv.org/abs/1904.08918>`_, CVPR 2019. Vandenhende et al., `Multi-Task Learning for Dense
        Prediction Tasks: A Survey <https://arxiv.org/abs/2004.13379>`_, TPAMI 2021.
    """
    if not metrics:
        raise InputError("Δm needs at least one metric, got none.")
    for kind, given in (("baseline", baselines), ("direction", higher_is_better)):
        missing = [name for name in metrics if name not in given]
        if missing:
            raise InputError(f"Δm has no {kind} for the metric `{missing[0]}`; given: {', '.join(given) or 'none'}.")
    if any(baselines[name] == 0 for name in metrics):
        return nan
    changes = [(value - baselines[name]) / abs(baselines[name]) for name, value in metrics.items()]
    signs = [1 if higher_is_better[name] else -1 for name in metrics]
    return 100 * fmean(sign * change for sign, change in zip(signs, changes, strict=True))


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Compute mean and sample standard deviation, as over seeds.

    Args:
        values: At least one number.

    Returns:
        The mean, and the standard deviation with n − 1 in the denominator: NaN for one value.

    Raises:
        InputError: Where there is no value.

    Examples:
        >>> mean_and_std([1.0, 2.0, 3.0])
        (2.0, 1.0)
    """
    if not values:
        raise InputError("Mean and standard deviation need at least one value, got none.")
    return fmean(values), stdev(values) if len(values) > 1 else nan


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
        if not isfinite(value):
            raise InputError(f"Statistics over seeds need finite values, got {value}.")
    return np.asarray(values, dtype=np.float64)
