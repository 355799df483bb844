"""Numbers over results: was multi-task training worth it, and is a difference more than the seeds?"""

from collections.abc import Mapping, Sequence
from math import nan
from statistics import fmean, stdev

from mtl_opt.errors import InputError


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
