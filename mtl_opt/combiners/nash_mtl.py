"""Multi-task learning as a bargaining game."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.bargain import cap, fair_weights, note_outcome
from mtl_opt.combiners.common.solvers import relative_precision


class NashMTL(Combiner):
    r"""Compute the Nash bargaining solution: the update that maximises the product of the tasks' gains.

    $$ G \alpha = 1 / \alpha, \quad \alpha > 0, \qquad
       d = \min\Bigl(1, \frac{\texttt{max\_norm}}{\lVert \sum_i \alpha_i g_i \rVert}\Bigr) \sum_i \alpha_i g_i $$

    $\alpha$ minimises the strictly convex $\tfrac12 \alpha^\top G \alpha - \sum_i \log \alpha_i$; a damped Newton
    method on unit rows finds it in about ten steps. Invariant to row scale: multiplying a gradient divides its weight.

    Scale: the update's norm is `max_norm`, at most the square root of the number of tasks (the norm of every uncapped
    solution).

    Undefined: where positive weights cancel the gradients (Pareto-stationary rows) there is no solution: weights that
    cancel them are returned, scaled to add up to the number of tasks, the update is 0 up to rounding, and a
    `RuntimeWarning` is given once. The same holds where the search does not converge in 100 steps, with its last
    iterate as the weights. A zero gradient takes no part.

    Cost: $O(\text{tasks}^3)$ on the CPU, a few times.

    Departures: the paper solves a sequence of convex approximations with a conic solver from the last step's weights;
    the root is the same and does not depend on earlier steps. The authors' code applies the weights to the losses,
    so that task heads are scaled as well: see `head_policy` of `TaskGradients`. Its `update_weights_every` is `Every`.

    Args:
        max_norm: Largest norm of the update; None: no cap.

    Raises:
        ValueError: If `max_norm` is not positive.

    References:
        Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya, `Multi-Task Learning as a Bargaining Game
        <https://arxiv.org/abs/2202.01017>`_, ICML 2022, Algorithm 1.

    Examples:
        >>> NashMTL()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.0542, 0.7061, 0.7061])
    """

    requires = "gramian"
    scale_invariant = True
    scale: ClassVar[str] = "norm at most max_norm"
    paper = "Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022, https://arxiv.org/abs/2202.01017"

    def __init__(self, max_norm: float | None = 1.0) -> None:
        super().__init__()
        self.max_norm = None if max_norm is None else positive("max_norm", max_norm)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        inner = step.gramian.numpy()
        # G α = 1 / α: proportional fairness, the case of FairGrad with exponent 1.
        found, outcome = fair_weights(inner, 1.0, relative_precision(step.like, len(inner)))
        note_outcome(self, outcome)
        return step.leave(torch.from_numpy(cap(found, inner, self.max_norm)))
