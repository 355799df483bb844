"""The best update for the worst-off task within a ball around the mean gradient."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.solvers import (
    cone_rows,
    min_norm_point,
    nonnegative_solve,
    relative_precision,
    unit_rows,
)

MAX_SOLVES = 100


class CAGrad(Combiner):
    r"""Maximise the progress of the worst-off task among all updates near the mean gradient.

    With $g_0$ the mean gradient, $g_w = \sum_i w_i g_i$ and $w$ over the simplex:

    $$ d = \operatorname*{argmax}_{\lVert d - g_0 \rVert \le c \lVert g_0 \rVert} \min_i \langle g_i, d \rangle
       = g_0 + \frac{c \lVert g_0 \rVert}{\lVert g_w \rVert}\, g_w, \qquad
       w = \operatorname*{argmin}_w\ \langle g_w, g_0 \rangle + c \lVert g_0 \rVert \lVert g_w \rVert $$

    divided by 1, $1 + c^2$ or $1 + c$ for `rescale` 0, 1 and 2. The problem is solved exactly: for a multiplier $t$
    the minimiser of $\langle g_w, g_0 \rangle + \tfrac t2 \lVert g_w \rVert^2$ is the shortest point of the hull of
    $g_i + g_0 / t$, and the squared distance $t^2 \lVert g_w \rVert^2$ from $g_0$ is increasing and piecewise linear
    in $t^2$, so that Newton's method reaches the ball's radius in a few such solves.

    Scale: mean, up to $1 + c$ times as long. With $c = 0$ it is `Mean`; for $c \ge 1$ it conflicts with no task.

    Undefined: the update is not unique where some tasks cannot all be improved and an update that harms none lies
    inside the ball: then it is the one closest to $g_0$, as in `DualProj`. A zero mean gradient gives 0. A zero
    gradient counts in $g_0$ alone. A solve that does not converge warns, and the step takes the mean.

    Cost: $O(\text{tasks}^3)$.

    Departures: a zero gradient is left out of the minimum over tasks, which it would hold at 0. The authors' codes
    use SLSQP or a few steps of gradient descent for $w$, different rescaling, and multiply by the number of tasks.

    Args:
        c: Radius of the ball over the length of the mean gradient, at least 0.
        rescale: 0: the update as it is; 1: over $1 + c^2$; 2: over $1 + c$.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Liu, Liu, Jin, Stone, Liu, `Conflict-Averse Gradient Descent for Multi-task Learning
        <https://arxiv.org/abs/2110.14048>`_, NeurIPS 2021, Algorithm 1.

    Examples:
        >>> CAGrad(c=0.5)(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.1835, 1.2041, 1.2041])
    """

    requires = "gramian"
    scale: ClassVar[str] = "mean"
    paper = "Liu et al., Conflict-Averse Gradient Descent, NeurIPS 2021, https://arxiv.org/abs/2110.14048"

    def __init__(self, c: float = 0.5, rescale: Literal[0, 1, 2] = 0) -> None:
        super().__init__()
        if rescale not in {0, 1, 2}:
            raise ValueError(f"`rescale` must be 0, 1 or 2, got {rescale!r}.")
        self.c = positive("c", c, zero=True)
        self.rescale = int(rescale)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        cosines, lengths = unit_rows(step.gramian.numpy())
        weights = np.full(len(lengths), 1 / len(lengths))
        precision = relative_precision(step.like, len(lengths))
        alive = np.flatnonzero(lengths)
        if len(alive):
            rows = cone_rows(cosines, precision)[alive] * (lengths[alive, None] / lengths.max())
            beyond = beyond_mean(rows, rows.sum(0) / len(lengths), self.c, precision)
            if beyond is None:
                return self.mean_instead(step, "the search for the weights did not converge", warn=True)
            weights[alive] += beyond
        return step.leave(torch.from_numpy(weights / (1.0, 1 + self.c**2, 1 + self.c)[self.rescale]))


def beyond_mean(
    rows: np.ndarray,  # [tasks, coordinates]
    mean: np.ndarray,  # [coordinates]
    c: float,
    precision: float,
) -> np.ndarray | None:  # [tasks]
    """Compute the weights c‖g₀‖ / ‖g_w‖ · w that CAGrad adds to those of the mean gradient."""
    # For a multiplier t, w minimises ⟨g_w, g₀⟩ + t/2 ‖g_w‖²; the t is sought at which t ‖g_w‖ is the radius c ‖g₀‖.
    radius = c * float(np.linalg.norm(mean))
    lengths = np.linalg.norm(rows, axis=1)
    if radius <= c * precision * lengths.mean():  # c = 0, or gradients that cancel
        return np.zeros(len(rows))
    shortest = np.sqrt(precision) * lengths.min()  # a combination that is shorter may well be 0
    lower, upper = 0.0, np.inf
    multiplier = radius / lengths[np.argmin(rows @ mean)]
    for _ in range(MAX_SOLVES):
        hull = min_norm_point(rows + mean / multiplier)
        if hull is None:
            return None
        length = float(np.linalg.norm(hull @ rows))
        beyond = hull * (radius / length)
        excess = multiplier * length / radius - 1
        if abs(excess) < 1e-12 or upper - lower < 1e-14 * upper:
            return beyond
        lower, upper = (multiplier, upper) if excess < 0 else (lower, multiplier)
        if lower * shortest > radius:
            return _closest_without_harm(rows, mean, lengths)
        multiplier = _newton(multiplier, multiplier * length, radius, rows[hull > 0], lower, upper)
    return None


def _newton(multiplier: float, reached: float, radius: float, face: np.ndarray, lower: float, upper: float) -> float:
    """Compute the multiplier that reaches the radius on this face of the hull, or bisect the bracket."""
    # While w stays on one face, t² ‖g_w‖² is linear in t²; its slope is the squared distance of the face from 0.
    slope = _squared_distance(face)
    squared = multiplier**2 + (radius**2 - reached**2) / slope if slope > 0 else np.inf
    proposed = float(np.sqrt(max(squared, 0.0)))
    if lower < proposed < upper and proposed < 1e3 * multiplier:
        return proposed
    if upper == np.inf:
        return 1e3 * lower
    return float(np.sqrt(lower * upper)) if lower > 0 else upper / 1e3


def _squared_distance(face: np.ndarray) -> float:
    """Compute the squared distance from 0 to the affine hull of some rows."""
    lengths = np.linalg.norm(face, axis=1)
    unit, share = face / lengths[:, None], lengths.min() / lengths
    try:
        found = float(share @ np.linalg.solve(unit @ unit.T + np.outer(share, share), share))
    except np.linalg.LinAlgError:
        return 0.0
    return float(lengths.min()) ** 2 * (1 - found) / found if 0 < found < 1 else 0.0


def _closest_without_harm(rows: np.ndarray, mean: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
    """Compute the weights that take the mean gradient to the closest update that conflicts with no task."""
    added = nonnegative_solve(np.ascontiguousarray(rows.T / lengths), -mean)
    return None if added is None else added / lengths
