"""SDMGrad and MoDo line by line, on two lists of explicit gradient vectors."""

from collections.abc import Sequence

import numpy as np
from references.tracking_reference import nearest


class SDMGradReference:
    """Keep one weight per task."""

    def __init__(self, num_tasks: int, lambda_: float, lr: float, momentum: float, num_iter: int) -> None:
        self.lambda_, self.lr, self.momentum, self.num_iter = lambda_, lr, momentum, num_iter
        self.weights = np.full(num_tasks, 1 / num_tasks)

    def step(self, first: np.ndarray, second: np.ndarray, tasks: Sequence[int]) -> np.ndarray:
        """Combine one step of two halves."""
        present = list(tasks)
        mass = self.weights[present].sum()
        weights = self.weights[present] / mass if mass > 0 else np.full(len(present), 1 / len(present))
        velocity = np.zeros(len(present))
        lengths = [np.sqrt(max(float(first[i] @ second[i]), 0.0)) for i in range(len(present))]
        unit = sum(lengths) / len(lengths)
        equal = np.full(len(present), 1 / len(present))
        for _ in range(self.num_iter):
            towards = sum((weights[j] + self.lambda_ * equal[j]) * second[j] for j in range(len(present)))
            slope = np.array([row @ towards for row in first]) / unit**2
            velocity = self.momentum * velocity + slope
            weights = nearest(weights - self.lr * velocity, 1.0)
        self.weights[present] = weights * mass
        return ((weights + self.lambda_ * equal) / (1 + self.lambda_)) @ ((first + second) / 2)


class MoDoReference:
    """Keep one weight per task."""

    def __init__(self, num_tasks: int, gamma: float, rho: float) -> None:
        self.gamma, self.rho = gamma, rho
        self.weights = np.full(num_tasks, 1 / num_tasks)

    def step(self, first: np.ndarray, second: np.ndarray, tasks: Sequence[int]) -> np.ndarray:
        """Combine one step of two halves."""
        present = list(tasks)
        mass = self.weights[present].sum()
        weights = self.weights[present] / mass if mass > 0 else np.full(len(present), 1 / len(present))
        slope = first @ (weights @ second) + self.rho * weights
        weights = nearest(weights - self.gamma * slope, 1.0)
        self.weights[present] = weights * mass
        return weights @ ((first + second) / 2)
