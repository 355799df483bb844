"""One-sided projection: named tasks are never projected, the others give way to them."""

from typing import ClassVar

import numpy as np
from typing_extensions import override

from mtl_opt.combiners.common.main_tasks import AroundMain
from mtl_opt.combiners.common.solvers import cone_rows, nonnegative_solve, over_lengths


class PriorityProjection(AroundMain):
    r"""Remove from every other gradient the part that points against a main task, and add everything up.

    $$ d = \sum_{i \in M} g_i + \sum_{i \notin M} \tilde g_i, \qquad
       \tilde g_i = \arg\min_v \lVert v - g_i \rVert^2 \text{ subject to } \langle v, g_j \rangle \ge 0 \ (j \in M) $$

    With one main task $j$ that is the projection of PCGrad, $\tilde g_i = g_i - \min(0, \langle g_i, g_j \rangle)\, g_j
    / \lVert g_j \rVert^2$, on one side only. No other task ever slows a main task; conflicts among the main tasks and
    among the others are left as they are.

    Scale: sum (it equals `Sum` where nothing conflicts with a main task).

    Undefined: main tasks that are absent, or whose gradient is zero, constrain nothing; with all of them absent, or a
    solver that gives up (with a `RuntimeWarning`), the step takes the mean.

    Cost: $O(\text{tasks}^3)$ on the CPU with one main task, else one small non-negative least squares for every
    conflicting task.

    Departures: no paper has this exact method. With several main tasks the projection onto all their half-spaces at
    once (the quadratic programme of GEM) takes the place of PCGrad's projections one after the other: it depends on
    no order and leaves no conflict with a main task. A-GEM projects onto the mean of the reference gradients only.

    Args:
        main: The tasks that come first, by name or index.

    Raises:
        ValueError: If (at `bind`) there is no such task, or one is named twice.

    References:
        Chaudhry, Ranzato, Rohrbach, Elhoseiny, `Efficient Lifelong Learning with A-GEM
        <https://arxiv.org/abs/1812.00420>`_, ICLR 2019, equation 11: the projection for one reference.
        Lopez-Paz, Ranzato, `Gradient Episodic Memory for Continual Learning <https://arxiv.org/abs/1706.08840>`_,
        NeurIPS 2017: for several.

    Examples:
        >>> import torch
        >>> PriorityProjection(main=[0])(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([-2.8889,  3.2222,  3.2222])
    """

    requires = "gramian"
    scale: ClassVar[str] = "sum"
    paper = "Chaudhry et al., A-GEM, ICLR 2019, https://arxiv.org/abs/1812.00420 (the one-sided projection)"

    @override
    def around(
        self, cosines: np.ndarray, lengths: np.ndarray, is_main: np.ndarray, precision: float
    ) -> np.ndarray | None:
        main = np.flatnonzero(is_main & (lengths > 0))
        others = np.flatnonzero(~is_main)
        added = _added(cosines, main, others, precision)  # [others, main]
        if added is None:
            return None
        weights = np.ones(len(lengths))
        weights[main] += over_lengths(lengths[others] @ added, lengths[main])
        return weights


def _added(cosines: np.ndarray, main: np.ndarray, others: np.ndarray, precision: float) -> np.ndarray | None:
    """Compute how much of each unit main gradient the projection adds to each other unit gradient."""
    # One main task: -min(0, cos). Several: min_{λ ≥ 0} ‖u_i + Σ_j λ_j u_j‖, the dual of the projection.
    against = np.minimum(cosines[np.ix_(others, main)], 0.0)
    if len(main) < 2:
        return -against
    rows = cone_rows(cosines, precision)
    added = np.zeros_like(against)
    for i in np.flatnonzero((against < 0).any(1)):
        found = nonnegative_solve(rows[main].T, -rows[others[i]])
        if found is None:
            return None
        added[i] = found  # λ of the projection u_i + Σ_j λ_j u_j
    return added
