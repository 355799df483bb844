"""Solvers for `[tasks, tasks]` problems in float64 that several combiners share."""

import numpy as np
import torch
from scipy.linalg import lapack
from scipy.optimize import nnls
from torch import Tensor


def unit_rows(
    gramian: np.ndarray,  # [tasks, tasks]
) -> tuple[np.ndarray, np.ndarray]:  # [tasks, tasks], [tasks]
    """Compute the cosines of the gradients, with 0 in the rows of zero gradients, and their lengths."""
    lengths = np.sqrt(np.maximum(np.diag(gramian), 0.0))
    alive = lengths > 0
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=alive)
    # One factor at a time: the product of two tiny lengths would underflow.
    cosines = gramian * inverse[:, None] * inverse
    np.fill_diagonal(cosines, alive.astype(float))
    return cosines, lengths


def over_lengths(
    values: np.ndarray,  # [tasks]
    lengths: np.ndarray,  # [tasks]
) -> np.ndarray:  # [tasks]
    """Convert coefficients of unit rows to weights of the rows; a zero gradient gets weight 0."""
    return np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)


def relative_precision(like: Tensor, num_tasks: int) -> float:
    """Return the share of the largest eigenvalue of a cosine matrix below which an eigenvalue is rounding."""
    return 4 * num_tasks * float(torch.finfo(like.dtype).eps)


def pseudo_solve(
    matrix: np.ndarray,  # [tasks, tasks]
    right: np.ndarray,  # [tasks]
    precision: float,
) -> tuple[np.ndarray, float]:  # [tasks]
    """Solve `matrix x = right` in least squares by the shortest `x`; also return which share of `right` is reached."""
    # x = V Λ⁻¹ Vᵀ right over the eigenvectors V whose eigenvalues are above rounding.
    eigenvalues, vectors = np.linalg.eigh(matrix)
    kept = vectors[:, eigenvalues > precision * max(eigenvalues[-1], 0.0)]
    inner = kept.T @ right
    solution = kept @ (inner / eigenvalues[len(eigenvalues) - kept.shape[1] :])
    return solution, float(inner @ inner) / max(float(right @ right), 1e-300)


def cholesky_rows(
    cosines: np.ndarray,  # [tasks, tasks]
    precision: float,
) -> np.ndarray:  # [tasks, rank]
    """Factor cosines into `L Lᵀ`: the rows of `L` are the unit gradients in as many coordinates as they span."""
    # Pivoted Cholesky: P C Pᵀ = L Lᵀ stops at the rank, where the remaining pivots are rounding.
    lower, pivots, rank, _ = lapack.dpstrf(cosines, tol=precision, lower=1)
    rows = np.empty_like(cosines)
    rows[pivots - 1] = np.tril(lower)
    return rows[:, :rank]


def cone_rows(
    cosines: np.ndarray,  # [tasks, tasks]
    precision: float,
) -> np.ndarray:  # [tasks, coordinates]
    """Factor cosines like `cholesky_rows`, with a coordinate of the size of rounding for each of dependent gradients.

    Without it coefficients of 1e7 cancel each other and amplify rounding to the size of the update.
    """
    rows = cholesky_rows(cosines, precision)
    alive = np.diag(cosines)
    if rows.shape[1] == np.count_nonzero(alive):
        return rows
    return np.hstack([rows, np.sqrt(precision / (4 * len(cosines))) * np.diag(alive)])


def nonnegative_solve(
    columns: np.ndarray,  # [coordinates, tasks]
    target: np.ndarray,  # [coordinates]
) -> np.ndarray | None:  # [tasks]
    """Minimise `‖columns x - target‖` over `x >= 0` by the active-set method of Lawson and Hanson.

    Every step of the method lowers the distance, so that no active set comes back: it ends, on stationary rows too.
    """
    size = float(np.linalg.norm(target))
    if size == 0:
        return np.zeros(columns.shape[1])
    goal = target / size  # the tolerances of `nnls` are absolute
    try:
        found = nnls(columns, goal, maxiter=30 * columns.shape[1])[0]
    except RuntimeError:
        found = None
    # On dependent columns it was seen to stop with negative coefficients, or short of the optimum, without a word.
    if found is None or not is_optimal(columns, goal, found):
        exact = active_set_solve(columns, goal)
        found = exact if exact is not None else None if found is None else np.maximum(found, 0.0)
    return None if found is None else found * size


OPTIMALITY = 1e-10
"""Largest gradient, relative to columns and target of length 1, at which a least-squares solution counts as one."""


def is_optimal(
    columns: np.ndarray,  # [coordinates, tasks]
    target: np.ndarray,  # [coordinates]
    found: np.ndarray,  # [tasks]
) -> bool:
    """Check the conditions of Karush, Kuhn and Tucker, which a minimum over `x >= 0` meets and nothing else does."""
    descent = columns.T @ (target - columns @ found)
    at_rest = np.abs(descent[found > 0]).max(initial=0.0) <= OPTIMALITY
    return bool((found >= 0).all() and descent.max() <= OPTIMALITY and at_rest)


def active_set_solve(
    columns: np.ndarray,  # [coordinates, tasks]
    target: np.ndarray,  # [coordinates]
) -> np.ndarray | None:  # [tasks]
    """Solve the same problem by the same method with an orthogonal factorisation per step: slower, and exact."""
    found = np.zeros(columns.shape[1])
    passive = found > 0
    for _ in range(30 * len(found)):
        descent = np.where(passive, -np.inf, columns.T @ (target - columns @ found))
        if passive.all() or descent.max() <= OPTIMALITY / 1000:
            return found if is_optimal(columns, target, found) else None
        passive[descent.argmax()] = True
        while True:
            wanted = np.zeros_like(found)
            wanted[passive] = np.linalg.lstsq(columns[:, passive], target, rcond=None)[0]
            falling = passive & (wanted <= 0)
            if not falling.any():
                break
            # As far towards the solution of the passive columns as all coefficients stay positive.
            step = (found[falling] / (found[falling] - wanted[falling])).min()
            found = found + step * (wanted - found)
            passive &= found > 1e-15 * max(1.0, found.max())
            found[~passive] = 0.0
        found = wanted
    return None


def min_norm_point(
    points: np.ndarray,  # [tasks, coordinates]
) -> np.ndarray | None:  # [tasks]
    r"""Find the point of smallest norm in the convex hull of some points.

    With $a > 0$, the minimiser of $\lVert \sum_i x_i p_i \rVert^2 + a^2 (\sum_i x_i - 1)^2$ over $x \ge 0$ is a
    multiple of the wanted one: the conditions of both say that $\langle p_i, \sum_j x_j p_j \rangle$ is the same where
    $x_i > 0$ and not smaller elsewhere. So this too is a non-negative least-squares problem, here on unit points.
    """
    lengths = np.sqrt(np.einsum("tc,tc->t", points, points))
    shortest = lengths.min()
    if shortest == 0:
        at_zero = lengths == 0
        return at_zero / at_zero.sum()
    share = shortest / lengths
    columns = np.empty((points.shape[1] + 1, len(points)))
    np.divide(points.T, lengths, out=columns[:-1])
    columns[-1] = share
    target = np.zeros(len(columns))
    target[-1] = 1.0
    found = nonnegative_solve(columns, target)
    if found is None:
        return None
    found *= share
    return found / found.sum()


def draw_orders(num_tasks: int, generator: torch.Generator) -> np.ndarray:  # [tasks, tasks]
    """Draw for every task the order in which it meets all tasks."""
    return torch.rand(num_tasks, num_tasks, generator=generator).argsort(1).numpy()


def project_onto_simplex(
    values: np.ndarray,  # [tasks]
    total: float = 1.0,
) -> np.ndarray:  # [tasks]
    """Project numbers onto the simplex of non-negative numbers that add up to `total`."""
    # The projection is max(x - θ, 0), where θ is the mean excess of the largest entries, as many as stay positive.
    shifted = values - values.max()
    ordered = np.sort(shifted)[::-1]
    excess = (np.cumsum(ordered) - total) / np.arange(1, len(values) + 1)
    threshold = excess[np.flatnonzero(ordered >= excess)[-1]]
    return np.maximum(shifted - threshold, 0.0)


def nearest_semidefinite(
    matrix: np.ndarray,  # [tasks, tasks]
    precision: float,
) -> np.ndarray:  # [tasks, tasks]
    """Compute the nearest positive semidefinite matrix: negative eigenvalues become 0."""
    values, vectors = np.linalg.eigh(matrix)
    if values[0] >= -precision * values[-1]:
        return matrix
    kept = values > 0
    return (vectors[:, kept] * values[kept]) @ vectors[:, kept].T
