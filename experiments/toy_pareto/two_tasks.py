"""The two-task toy of CAGrad and Nash-MTL: two losses over two parameters with cliffs, a valley and two traps.

    L1 = log max(|0.5 (−x1 − 7) − tanh(−x2)|, 5e-6) + 6        q1 = ((7 − x1)² + 0.1 (x2 + 8)²) / 10 − 20
    L2 = log max(|0.5 (3 − x1) + tanh(−x2) + 2|, 5e-6) + 6     q2 = ((7 + x1)² + 0.1 (x2 + 8)²) / 10 − 20
    f_i = L_i · max(tanh(x2 / 2), 0) + q_i · max(tanh(−x2 / 2), 0)

Losses, gradients and optimizer work on many runs at once, in float64; only the combiners are asked one by one.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

LOWER = 5e-6
BOTTOM = -21.0
"""A bound below both losses, whose least value is above −20."""

PARETO_X2 = -8.3552
"""The Pareto set of the unscaled losses lies on this line, x1 from −7 to 7."""

CAGRAD_INITS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))
NASH_INITS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))


@dataclass(frozen=True)
class Variant:
    """Describe one published setting of the toy.

    Attributes:
        scale: Factors of the two losses.
        inits: Starting points.
        steps: Steps of Adam.
        arguments: Arguments of combiners that the setting changes, by name.
        lr: Learning rate of Adam.
    """

    scale: tuple[float, float]
    inits: tuple[tuple[float, float], ...]
    steps: int
    arguments: dict[str, dict[str, Any]] = field(default_factory=dict)
    lr: float = 1e-3


FAMO = {"weight_decay": 0.0}  # as in its authors' toy; the bound is taken off the losses before any combiner sees them

VARIANTS = {
    "cagrad": Variant((1.0, 1.0), CAGRAD_INITS, 100_000, {"cagrad": {"c": 0.5, "rescale": 2}, "famo": FAMO}),
    "nash": Variant((0.1, 1.0), NASH_INITS, 35_000, {"cagrad": {"c": 0.4}, "famo": FAMO}),
    "nash_corner": Variant((0.1, 1.0), ((9.0, 9.0),), 35_000),
    "famo": Variant((0.1, 1.0), NASH_INITS, 50_000, {"cagrad": {"c": 0.4}, "famo": FAMO}),
    "aligned": Variant((0.5, 0.5), NASH_INITS, 35_000, {"cagrad": {"c": 0.4}, "famo": FAMO}),
}


def losses_and_jacobian(
    points: np.ndarray,  # [runs, 2]
    scale: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:  # [runs, 2], [runs, 2, 2]
    """Compute both losses and their gradients.

    The gradient passes a maximum where both sides are equal, as torch's `clamp` does; on the line x2 = 0 this decides.
    """
    x1, x2 = points[:, 0], points[:, 1]
    tanh, half = np.tanh(-x2), np.tanh(0.5 * x2)
    above, below = np.maximum(half, 0.0), np.maximum(-half, 0.0)
    slope = 0.5 * (1 - half**2)
    d_above, d_below = np.where(half >= 0, slope, 0.0), np.where(half <= 0, -slope, 0.0)
    losses, jacobian = np.empty((len(points), 2)), np.empty((len(points), 2, 2))
    inner = 0.5 * (-x1 - 7) - tanh, 0.5 * (3 - x1) + tanh + 2
    centre = x1 - 7, x1 + 7
    for task, sign in enumerate((1.0, -1.0)):  # of d inner / d x2
        size = np.abs(inner[task])
        passing = np.where(size >= LOWER, np.sign(inner[task]) / np.maximum(size, LOWER), 0.0)
        log = np.log(np.maximum(size, LOWER)) + 6
        bowl = (centre[task] ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
        losses[:, task] = scale[task] * (log * above + bowl * below)
        jacobian[:, task, 0] = scale[task] * (-0.5 * passing * above + centre[task] / 5 * below)
        d_log = passing * sign * (1 - tanh**2)
        d_bowl = 0.02 * (x2 + 8)
        jacobian[:, task, 1] = scale[task] * (d_log * above + log * d_above + d_bowl * below + bowl * d_below)
    return losses, jacobian


class Adam:
    """Adam of many runs at once, with torch's defaults.

    Args:
        shape: Of the parameters. `[runs, params]`
        lr: Learning rate.
    """

    def __init__(self, shape: tuple[int, int], lr: float) -> None:
        self.lr = lr
        self.first, self.second = np.zeros(shape), np.zeros(shape)
        self.steps = 0

    def step(self, points: np.ndarray, gradients: np.ndarray) -> None:  # [runs, params] x2
        """Move the points, in place."""
        self.steps += 1
        self.first += 0.1 * (gradients - self.first)
        self.second += 0.001 * (gradients**2 - self.second)
        size = np.sqrt(self.second / (1 - 0.999**self.steps)) + 1e-8
        points -= self.lr / (1 - 0.9**self.steps) * self.first / size

    def keep(self, runs: np.ndarray) -> None:  # [runs] of bool
        """Forget the runs that are over."""
        self.first, self.second = self.first[runs], self.second[runs]
