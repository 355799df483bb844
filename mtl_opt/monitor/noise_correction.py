"""Cosines corrected for sampling noise, their intervals, and a verdict: conflict, agreement, or noise."""

from dataclasses import dataclass

import torch
from scipy.stats import t as student
from torch import Tensor

CONFLICT, AGREEMENT, NOISE = "real conflict", "real agreement", "noise"

CONFIDENCE = 0.95
"""Of the two-sided interval of a cosine, and of the one-sided test that a task's signal is positive."""

MIN_BLOCKS = 3
"""Fewest blocks for an interval."""


@dataclass(frozen=True)
class CorrectedCosines:
    """Describe the expected gradients of a window of steps.

    Attributes:
        cosines: Cosines of the expected gradients; NaN where a task has no clearly positive signal. `[tasks, tasks]`
        low: Lower ends of their intervals. `[tasks, tasks]`
        high: Upper ends. `[tasks, tasks]`
        verdict: "real conflict" where the whole interval is negative, "real agreement" where it is positive, else
            "noise"; None on the diagonal and for tasks that were not seen often enough to say anything.
        signal_to_noise: Squared norm of the expected gradient over the variance of one step's, 0 where no signal was
            found; NaN for tasks that were not seen often enough. `[tasks]`
        steps: Steps that it rests on.
    """

    cosines: Tensor  # [tasks, tasks]
    low: Tensor  # [tasks, tasks]
    high: Tensor  # [tasks, tasks]
    verdict: list[list[str | None]]
    signal_to_noise: Tensor  # [tasks]
    steps: int


def correct_noise(
    blocks: Tensor,  # [blocks, tasks, tasks]
    power: Tensor,  # [blocks, tasks]
    steps: int,
) -> CorrectedCosines | None:
    """Estimate the cosines of the expected gradients from independent blocks of steps.

    The gradient of a batch is signal plus noise, and the noise shrinks its cosines towards 0. The blocks hold unbiased
    estimates of the inner products of the expected gradients; the cosine is the ratio of their means, and its interval
    that of the jackknife over the blocks (Student's t, 95 %). A task whose signal is not clearly positive (one-sided t
    test of its blocks, 95 %) has no direction that could be measured: its cosines are left undefined, "noise".
    """
    if len(blocks) < MIN_BLOCKS:
        return None
    exact = blocks.double()
    signals = exact.diagonal(dim1=-2, dim2=-1)  # [blocks, tasks]
    usable = exact.isfinite() & signals.isfinite()[:, :, None] & signals.isfinite()[:, None, :]
    counts = usable.sum(0)  # [tasks, tasks]
    seen = counts >= MIN_BLOCKS
    clear = _clearly_positive(signals)
    defined = seen & clear[:, None] & clear[None, :]
    cosine, error = _jackknife(exact, signals, usable)
    margin = error * _quantile((1 + CONFIDENCE) / 2, counts)
    diagonal = torch.eye(len(cosine), dtype=torch.bool)
    low, high = cosine - margin, cosine + margin
    # A true cosine lies in [-1, 1], so cutting there loses no coverage.
    low, cosine, high = (torch.where(defined, part, torch.nan).clamp(-1, 1) for part in (low, cosine, high))
    low, cosine, high = (torch.where(diagonal & defined, 1.0, part) for part in (low, cosine, high))
    return CorrectedCosines(
        cosine, low, high, _verdicts(low, high, seen & ~diagonal), _signal_to_noise(signals, power), steps
    )


def _clearly_positive(signals: Tensor) -> Tensor:  # [blocks, tasks] -> [tasks]
    """Test block by block whether a task has a signal at all."""
    counts = signals.isfinite().sum(0)
    mean = signals.nanmean(0)
    variance = (signals - mean).square().nansum(0) / (counts - 1).clamp(min=1)
    limit = _quantile(CONFIDENCE, counts) * (variance / counts).sqrt()
    return (counts >= MIN_BLOCKS) & (mean > limit)


def _jackknife(
    blocks: Tensor,  # [blocks, tasks, tasks]
    signals: Tensor,  # [blocks, tasks]
    usable: Tensor,  # [blocks, tasks, tasks]
) -> tuple[Tensor, Tensor]:  # [tasks, tasks], [tasks, tasks]
    """Compute the ratio of means and its standard error from leaving out one block after the other."""
    count = usable.sum(0)
    product, first, second = (
        torch.where(usable, part, 0.0)
        for part in (blocks, signals[:, :, None].expand_as(blocks), signals[:, None, :].expand_as(blocks))
    )

    def ratio(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        norms = b.clamp(min=0).sqrt() * c.clamp(min=0).sqrt()
        return torch.where(norms > 0, a / norms, torch.nan)

    sums = [part.sum(0) for part in (product, first, second)]
    whole = ratio(*sums)
    without = ratio(*(total - part for total, part in zip(sums, (product, first, second), strict=True)))
    without = torch.where(usable, without, torch.nan)
    # A signal that hangs on one block alone makes a ratio without it undefined: then nothing can be said.
    broken = (usable & without.isnan()).any(0)
    spread = (without - without.nanmean(0)).square().nansum(0)
    error = (spread * (count - 1) / count.clamp(min=1)).sqrt()
    return whole, torch.where(broken, torch.nan, error)


def _quantile(level: float, counts: Tensor) -> Tensor:
    """Compute quantiles of Student's t for a mean over `counts` blocks."""
    return torch.from_numpy(student.ppf(level, (counts - 1).clamp(min=1).numpy()))


def _verdicts(low: Tensor, high: Tensor, seen: Tensor) -> list[list[str | None]]:  # all [tasks, tasks]
    """Classify every pair by its interval."""

    def verdict(below: float, above: float) -> str:
        return CONFLICT if above < 0 else AGREEMENT if below > 0 else NOISE  # NaN compares false: noise

    pairs = zip(low.tolist(), high.tolist(), seen.tolist(), strict=True)
    return [[verdict(a, b) if known else None for a, b, known in zip(*row, strict=True)] for row in pairs]


def _signal_to_noise(signals: Tensor, power: Tensor) -> Tensor:  # [blocks, tasks], [blocks, tasks] -> [tasks]
    """Divide the squared norm of the expected gradient by the variance of a single step's."""
    usable = signals.isfinite()
    signal = torch.where(usable, signals, torch.nan).nanmean(0)
    noise = torch.where(usable, power.double(), torch.nan).nanmean(0) - signal
    ratio = signal.clamp(min=0) / noise
    return torch.where(noise > 0, ratio, torch.where(signal > 0, torch.inf, torch.nan))
