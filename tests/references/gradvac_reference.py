"""GradVac on explicit gradient vectors, line by line as Algorithm 1 of Wang et al. 2021."""

from collections.abc import Sequence

import numpy as np


def gradvac(
    gradients: np.ndarray, targets: np.ndarray, beta: float, orders: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:  # [tasks, params], [tasks, tasks] -> [params], [tasks, tasks]
    """Raise every cosine to its target, in the given order; return the sum and the new targets."""
    targets = targets.copy()
    corrected = [gradient.copy() for gradient in gradients]
    for i, order in enumerate(orders):
        for j in order:
            if j == i:
                continue
            own, other = np.linalg.norm(corrected[i]), np.linalg.norm(gradients[j])
            cosine, target = corrected[i] @ gradients[j] / (own * other), targets[i, j]
            if cosine < target:
                numerator = own * (target * np.sqrt(1 - cosine**2) - cosine * np.sqrt(1 - target**2))
                corrected[i] = corrected[i] + numerator / (other * np.sqrt(1 - target**2)) * gradients[j]
            targets[i, j] = (1 - beta) * target + beta * cosine
    return sum(corrected, np.zeros_like(gradients[0])), targets
