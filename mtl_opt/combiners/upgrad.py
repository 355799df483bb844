"""Unconflicting projection of every gradient."""

from typing import ClassVar

import numpy as np
from typing_extensions import override

from mtl_opt.combiners.common.cone import ConeProjection
from mtl_opt.combiners.common.solvers import cone_rows, min_norm_point, nonnegative_solve


class UPGrad(ConeProjection):
    r"""Project every task gradient onto the cone of directions that conflict with no task, then average.

    With the preference $u$ (all $1/m$ for $m$ present tasks) and $G = J J^\top$:

    $$ d = \sum_i u_i\, \pi_J(g_i) = J^\top w, \qquad
       w = \sum_i \operatorname*{argmin}_{v \ge u_i e_i} v^\top G v, \qquad
       \pi_J(x) = \operatorname*{argmin}_{y:\ J y \ge 0} \lVert y - x \rVert $$

    Every projection is a non-negative least-squares problem, solved exactly on the unit gradients: the result does
    not depend on the length of the rows, and scaling one row scales its term alone.

    Scale: mean (it equals `Mean` where nothing conflicts). No gradient conflicts with the update, up to the rounding of
    the Gramian.

    Undefined: nowhere. Where the gradients are linearly dependent the update is unique, the weights
    need not be. A zero gradient conflicts with nobody. A solve that does not converge warns, and the step takes the
    preference as weights.

    Cost: $O(\text{tasks}^4)$ on the CPU in the worst case, 2 to 3 ms for 40 tasks.

    Departures: none from the paper. The authors' code normalises the Gramian by its trace and adds 1e-4 to the
    diagonal for its quadratic-programming solver, which lets small gradients conflict; nothing is added here.

    Args:
        preference: Weight of every task's projection, by task name or in task order, positive; not normalised.
            Default: 1 over the number of present tasks. With all ones and two tasks it equals `PCGrad`.

    Raises:
        ValueError: If a preference is not positive and finite, or (at `bind`) does not fit the tasks.

    References:
        Quinton, Rey, `Jacobian Descent for Multi-Objective Optimization <https://arxiv.org/abs/2406.16232>`_, 2024,
        equation 5 and proposition 1.

    Examples:
        >>> import torch
        >>> UPGrad()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.2924, 1.9006, 1.9006])
    """

    requires = "gramian"
    scale: ClassVar[str] = "mean"
    paper = "Quinton, Rey, Jacobian Descent for Multi-Objective Optimization, 2024, https://arxiv.org/abs/2406.16232"

    @override
    def added(self, cosines: np.ndarray, preferred: np.ndarray, precision: float) -> np.ndarray | None:
        added = added_by_projection(cosines, precision)
        return None if added is None else preferred @ added  # row i of a longer gradient is as much longer


def added_by_projection(
    cosines: np.ndarray,  # [tasks, tasks]
    precision: float,
) -> np.ndarray | None:  # [tasks, tasks]
    """Project every unit gradient onto the directions that conflict with none; row i: what is added to gradient i."""
    # π_J(u_i) = u_i + Σ_j a_ij u_j with a_i = argmin_{a ≥ 0} ‖u_i + Σ_j a_j u_j‖, the dual of the projection.
    added = np.zeros_like(cosines)
    rows = cone_rows(cosines, precision)
    columns = np.ascontiguousarray(rows.T)
    cancelling = cancelling_shares(rows, precision)
    for task in np.flatnonzero((cosines < 0).any(1)):
        if cancelling is not None and cancelling[task] > 1e-3 * cancelling.max():
            added[task] = cancelling / cancelling[task]
            added[task, task] = 0.0
            continue
        found = nonnegative_solve(columns, -columns[:, task])
        if found is None:
            return None
        added[task] = found
    return added


def cancelling_shares(
    rows: np.ndarray,  # [tasks, coordinates]
    precision: float,
) -> np.ndarray | None:  # [tasks]
    """Find a non-negative combination of gradients that is 0: those in it project to 0, which saves their solves."""
    alive = np.flatnonzero(rows.any(1))
    found = min_norm_point(rows[alive]) if len(alive) else None
    if found is None or np.square(found @ rows[alive]).sum() > precision:
        return None
    shares = np.zeros(len(rows))
    shares[alive] = found
    return shares
