"""CoBa with every validation loss and slope kept in lists, and straight lines fitted by `numpy.polyfit`."""

from collections.abc import Mapping, Sequence

import numpy as np


def softmax(values: Sequence[float]) -> np.ndarray:  # [n]
    """Divide exponentials by their sum."""
    powers = np.exp(np.asarray(values) - np.max(values))
    return powers / powers.sum()


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Fit a straight line."""
    return float(np.polyfit(np.asarray(times, dtype=float), np.asarray(values, dtype=float), 1)[0])


class CoBaReference:
    """Both forms of CoBa; an observation maps tasks to validation losses."""

    def __init__(self, num_tasks: int, form: str, window: int, warmup: int, tau: float) -> None:
        self.num_tasks, self.form, self.window, self.warmup, self.tau = num_tasks, form, window, warmup, tau
        self.first: dict[int, float] = {}
        self.values: list[list[tuple[int, float]]] = [[] for _ in range(num_tasks)]
        self.slopes: list[list[float]] = [[] for _ in range(num_tasks)]
        self.peaks: list[float] = []
        self.worst: list[float] = []
        self.learnt = np.full(num_tasks, 1 / num_tasks)

    def observe(self, losses: Mapping[int, float]) -> None:
        """Take validation losses and share out the weights anew."""
        now = len(self.peaks)
        for task, loss in losses.items():
            self.values[task].append((now, loss / self.first.setdefault(task, loss)))
        self.peaks.append(max(values[-1][1] for values in self.values if values))
        ready = [task for task in losses if len(self.values[task]) >= self.warmup]
        if not ready:
            return
        for task in ready:
            self.slopes[task].append(slope(*zip(*self.values[task][-self.window :], strict=True)))
        self.worst.append(self.worst_slope(now))
        self.learnt[ready] = self.mixed(ready) * self.learnt[ready].sum()

    def worst_slope(self, now: int) -> float:
        """Tell how fast the worst task converges."""
        if self.form == "paper":
            return max(slopes[-1] for slopes in self.slopes if slopes)
        recent = self.peaks[-self.window :]
        return slope(range(now - len(recent) + 1, now + 1), recent)

    def scores(self, ready: Sequence[int]) -> tuple[np.ndarray, np.ndarray, float]:
        """Compute RCS, ACS and the divergence factor before any bound."""
        current = [self.slopes[task][-1] for task in ready]
        relative = softmax([len(ready) * a / sum(abs(b) for b in current) for a in current])
        histories = [self.slopes[task][-self.window :] for task in ready]
        absolute = softmax([-len(h) * h[-1] / sum(abs(a) for a in h) for h in histories])
        total = sum(abs(a) for a in self.worst)
        exponents = [-self.tau * len(self.worst) * a / total for a in self.worst]
        return relative, absolute, float(len(self.worst) * softmax(exponents)[-1])

    def mixed(self, ready: Sequence[int]) -> np.ndarray:  # [ready]
        """Put the scores together."""
        relative, absolute, factor = self.scores(ready)
        if self.form == "paper":
            factor = min(factor, 1)
            return factor * relative + (1 - factor) * absolute
        num_tasks, least = len(ready), 1 / (10 * len(ready))
        weights = softmax(num_tasks * (factor * relative + (1 - factor) * absolute))
        return weights * (1 - num_tasks * least) + least if min(weights) < least else weights

    def weights(self, tasks: Sequence[int]) -> np.ndarray:  # [present]
        """Scale the weights of the present tasks to add up to 1."""
        return self.learnt[list(tasks)] / self.learnt[list(tasks)].sum()
