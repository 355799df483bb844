"""Bootstrap, t-test and Holm written out step by step."""

import math

import numpy as np


def bootstrap(values, level, resamples, seed):
    """Draw the same samples one by one, and sort their means."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    means = []
    for sample in drawn.tolist():
        total = 0.0
        for index in sample:
            total += values[index]
        means.append(total / len(values))
    means.sort()

    def quantile(share):  # linear between neighbours
        at = share * (len(means) - 1)
        low = math.floor(at)
        high = min(low + 1, len(means) - 1)
        return means[low] + (at - low) * (means[high] - means[low])

    return quantile((1 - level) / 2), quantile((1 + level) / 2)


def t_test_three_degrees(values):
    """Two-sided p-value for four values: the distribution of t with three degrees of freedom has a closed form."""
    mean = sum(values) / 4
    variance = sum((value - mean) ** 2 for value in values) / 3
    t = abs(mean) / math.sqrt(variance / 4)
    x = t / math.sqrt(3)
    return 1 - 2 / math.pi * (x / (1 + x * x) + math.atan(x))


def holm_decisions(p_values, level):
    """Holm's own procedure: reject the smallest as long as p ≤ level / (number left)."""
    rejected = set()
    left = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(left):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected.add(index)
    return rejected
