"""PCGrad on explicit gradient vectors, line by line as Algorithm 1 of Yu et al. 2020."""

from collections.abc import Sequence

import numpy as np


def pcgrad(gradients: np.ndarray, orders: Sequence[Sequence[int]]) -> np.ndarray:  # [tasks, params] -> [params]
    """Project every gradient off each other one it conflicts with, in the given order, and add them up."""
    projected = [gradient.copy() for gradient in gradients]
    for i, order in enumerate(orders):
        for j in order:
            if j == i:
                continue
            product = projected[i] @ gradients[j]
            if product < 0:
                projected[i] = projected[i] - product / (gradients[j] @ gradients[j]) * gradients[j]
    return sum(projected, np.zeros_like(gradients[0]))
