"""The fair split behind Nash-MTL and FairGrad: the root of `Gw = w^(-power)`, by a damped Newton method."""

from typing import Literal

import numpy as np
from scipy.linalg import lapack

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.solvers import unit_rows

MAX_STEPS = 100
ENOUGH = 1e-11  # relative miss of every task's equation, beyond its rounding
Outcome = Literal["solved", "stationary", "stopped"]


def fair_weights(
    gramian: np.ndarray,  # [tasks, tasks]
    power: float,
    precision: float,
) -> tuple[np.ndarray, Outcome]:  # [tasks]
    r"""Solve $w_i^{power} (Gw)_i = 1$ for positive weights.

    They minimise the strictly convex $\tfrac12 w^\top G w - \sum_i \int w_i^{-power}$. Rows are scaled first so that
    every task alone would get the value 1: $w_i = \gamma_i \lVert g_i \rVert^{-2/(1+power)}$.
    """
    lengths = unit_rows(gramian)[1]
    alive = lengths > 0
    if not alive.any():
        return np.zeros(len(gramian)), "solved"
    scale = np.power(lengths[alive], -2 / (1 + power))
    matrix = gramian[np.ix_(alive, alive)] * scale[:, None] * scale
    values, outcome = _root(matrix, power, precision)
    weights = np.zeros(len(gramian))
    weights[alive] = values * scale
    if outcome == "stationary":
        weights *= len(gramian) / weights.sum()
    return weights, outcome


def cap(
    weights: np.ndarray,  # [tasks]
    gramian: np.ndarray,  # [tasks, tasks]
    max_norm: float | None,
) -> np.ndarray:  # [tasks]
    """Scale weights down until the update is no longer than `max_norm`."""
    norm = np.sqrt(max(float(weights @ gramian @ weights), 0.0))
    return weights if max_norm is None or norm <= max_norm else weights * (max_norm / norm)


def note_outcome(combiner: Combiner, outcome: Outcome) -> None:
    """Note a step that has no solution or whose search did not converge; warn the first time."""
    if outcome == "stationary":
        combiner.note("the gradients cancel (Pareto-stationary): the update is 0", warn=True)
    elif outcome == "stopped":
        combiner.note("the search did not converge: its last iterate is used", warn=True)


def _root(matrix: np.ndarray, power: float, precision: float) -> tuple[np.ndarray, Outcome]:
    """Solve `values^power (matrix values) = diagonal` from the weights that every task alone would get."""
    diagonal = np.diag(matrix)
    root, size, values = np.sqrt(diagonal), np.abs(matrix), np.ones(len(matrix))
    rounding = 4 * np.finfo(np.float64).eps
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for _ in range(MAX_STEPS):
            pull = matrix @ values
            energy = float(values @ pull)
            if energy <= precision * float(root @ values) ** 2:
                return values / values.max(), "stationary"
            # The best multiple first: it alone takes nearly stationary rows most of the way.
            stretch = (float(diagonal @ values ** (1 - power)) / energy) ** (1 / (1 + power))
            if 0 < stretch < np.inf:
                values, pull = values * stretch, pull * stretch
            share = values**power / diagonal
            noise = rounding * share * (size @ values)
            if (np.abs(share * pull - 1) <= ENOUGH + noise).all():
                return values, "solved"
            lost = np.where(noise >= 1, values, 0.0)  # what these tasks ask for is below rounding: do they cancel?
            if lost.any() and float(lost @ matrix @ lost) <= precision * float(root @ lost) ** 2:
                return lost / lost.max(), "stationary"
            factor = _newton_factor(matrix, values, pull, power)
            if factor is None:
                break
            values = values * factor
    return values, "stopped"


def _newton_factor(matrix: np.ndarray, values: np.ndarray, pull: np.ndarray, power: float) -> np.ndarray | None:
    """Compute the factor of every value in a damped Newton step; None where there is no such step."""
    # In relative steps dx = x ∘ s, the convex function that `fair_weights` minimises has the gradient x ∘ Mx - pay and
    # the Hessian diag(x) M diag(x) + power · diag(pay), where pay_i = M_ii x_i^(1 - power).
    pay = np.diag(matrix) * values ** (1 - power)
    gradient = values * pull - pay
    hessian = matrix * values * values[:, None]
    hessian[np.diag_indices_from(hessian)] += power * pay
    _, step, info = lapack.dposv(hessian, -gradient)
    if info:  # rows depend on each other and the values are far out: lift what rounding took from the diagonal
        hessian[np.diag_indices_from(hessian)] *= 1 + 4 * len(values) * np.finfo(np.float64).eps
        _, step, info = lapack.dposv(hessian, -gradient)
    if info or not np.isfinite(step).all():
        return None
    falls = step < 0
    first = float(gradient @ step)

    def moved(length: float) -> np.ndarray:
        # Bent so that no value ever reaches 0: one value that wants to shrink a lot must not stop the others.
        return np.where(falls, 1 / (1 - length * np.where(falls, step, 0.0)), 1 + length * step)

    def slope(length: float) -> float:
        factor = moved(length)
        speed = np.where(falls, step * factor * factor, step)
        return float(speed @ (values * (matrix @ (values * factor)) - pay * factor**-power))

    length = 1.0
    while not slope(length) <= -0.25 * first:
        length /= 2
        if length < 1e-18:
            return None
    if length == 1 and step.min() > -0.5:  # a direction without end: some of the rows cancel
        while length < 1e9 and slope(2 * length) < 0.1 * first:
            length *= 2
    return moved(length)
