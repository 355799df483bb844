"""What is measured of a conflict, written down literally on explicit gradient vectors."""

import math

import numpy as np
from scipy.stats import t as student


def magnitude_similarity(a, b):
    return 2 * np.linalg.norm(a) * np.linalg.norm(b) / (np.linalg.norm(a) ** 2 + np.linalg.norm(b) ** 2)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def curvature_bound(a, b):
    return (1 - cosine(a, b) ** 2) * np.linalg.norm(a - b) ** 2 / np.linalg.norm(a + b) ** 2


def degrees(a, b):
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine(a, b)))))


def jackknifed_cosine(products, first, second, confidence=0.95):
    """Ratio of means over blocks, and its interval, one block left out after the other."""
    n = len(products)

    def ratio(kept):
        mean = [sum(values[k] for k in kept) / len(kept) for values in (products, first, second)]
        return mean[0] / math.sqrt(mean[1] * mean[2])

    left_out = [ratio([k for k in range(n) if k != out]) for out in range(n)]
    middle = sum(left_out) / n
    error = math.sqrt((n - 1) / n * sum((value - middle) ** 2 for value in left_out))
    value, margin = ratio(range(n)), student.ppf((1 + confidence) / 2, n - 1) * error
    return value, value - margin, value + margin
