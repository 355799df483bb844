"""ExcessMTL, MoCo and DB-MTL line by line, on dictionaries of explicit gradient vectors."""

from collections.abc import Sequence

import numpy as np


class ExcessReference:
    """Keep one weight and one sum of squares per task."""

    def __init__(self, num_tasks: int, lr: float) -> None:
        self.lr = lr
        self.weights = np.full(num_tasks, 1 / num_tasks)
        self.squares: dict[int, np.ndarray] = {}
        self.first: dict[int, float] = {}

    def step(self, gradients: np.ndarray, tasks: Sequence[int]) -> np.ndarray:
        """Combine one step."""
        mass = self.weights[list(tasks)].sum()
        for task, gradient in zip(tasks, gradients, strict=True):
            self.squares[task] = self.squares.get(task, 0) + gradient**2
            risk = (gradient**2 / np.sqrt(self.squares[task])).sum()
            if task in self.first:
                self.weights[task] *= np.exp(self.lr * risk / self.first[task])
            else:
                self.first[task] = risk
        self.weights[list(tasks)] *= mass / self.weights[list(tasks)].sum()
        return self.weights[list(tasks)] @ gradients


class MoCoReference:
    """Keep one weight and one tracked gradient per task."""

    def __init__(self, num_tasks: int, beta: float, gamma: float, rho: float) -> None:
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.weights = np.full(num_tasks, 1 / num_tasks)
        self.tracked: dict[int, np.ndarray] = {}
        self.steps = np.zeros(num_tasks)

    def step(self, gradients: np.ndarray, tasks: Sequence[int]) -> np.ndarray:
        """Combine one step."""
        for task, gradient in zip(tasks, gradients, strict=True):
            self.steps[task] += 1
            old = self.tracked.get(task, np.zeros_like(gradient))
            self.tracked[task] = old - self.beta / self.steps[task] ** 0.5 * (old - gradient)
        tracked = np.stack([self.tracked[t] for t in tasks])
        old = self.weights[list(tasks)]
        slope = tracked @ (tracked.T @ old) + self.rho * old
        self.weights[list(tasks)] = nearest(old - self.gamma / self.steps[list(tasks)] ** 0.5 * slope, old.sum())
        return self.weights[list(tasks)] @ tracked


def nearest(values: np.ndarray, total: float) -> np.ndarray:
    """Project onto the scaled simplex by bisection on the shift."""
    low, high = values.min() - total, values.max()
    for _ in range(200):
        middle = (low + high) / 2
        if np.maximum(values - middle, 0).sum() > total:
            low = middle
        else:
            high = middle
    return np.maximum(values - (low + high) / 2, 0)


class DBReference:
    """Keep one tracked gradient of the log loss per task."""

    def __init__(self, beta: float, sigma: float) -> None:
        self.beta, self.sigma = beta, sigma
        self.tracked: dict[int, np.ndarray] = {}
        self.steps: dict[int, int] = {}

    def step(self, gradients: np.ndarray, losses: np.ndarray, tasks: Sequence[int]) -> np.ndarray:
        """Combine one step."""
        for task, gradient, loss in zip(tasks, gradients, losses, strict=True):
            self.steps[task] = self.steps.get(task, 0) + 1
            decay = self.beta / self.steps[task] ** self.sigma
            old = self.tracked.get(task, np.zeros_like(gradient))
            self.tracked[task] = decay * old + (1 - decay) * gradient / (loss + 1e-8)
        longest = max(np.linalg.norm(self.tracked[t]) for t in tasks)
        return sum(longest / np.linalg.norm(self.tracked[t]) * self.tracked[t] for t in tasks)
