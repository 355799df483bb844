"""Fair resource allocation in multi-task learning."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.bargain import fair_weights, note_outcome
from mtl_opt.combiners.common.solvers import relative_precision


class FairGrad(Combiner):
    r"""Share the progress of a step among the tasks by $\alpha$-fairness of their gains.

    $$ G w = w^{-1/\alpha}, \quad w > 0, \qquad d = \sum_i w_i g_i $$

    $\alpha = 0$ is the mean, $\alpha = 1$ proportional fairness (exactly `NashMTL` without its cap), $\alpha = 2$
    minimum potential delay, and $\alpha \to \infty$ the largest gain of the worst-off task. The weights minimise a
    strictly convex function; a damped Newton method finds them in about ten steps.

    Scale: the paper's own: with $\alpha = 1$ the update's norm is the square root of the number of tasks.

    Undefined: where positive weights cancel the gradients (Pareto-stationary rows) there is no solution: weights that
    cancel them are returned, scaled to add up to the number of tasks, the update is 0 up to rounding, and a
    `RuntimeWarning` is given once. The same holds where the search does not converge in 100 steps, with its last
    iterate as the weights: in trials with norms that differ by 1e6 and more this happened at $\alpha$ = 10 and 0.1,
    hardly ever from 0.5 to 2. A zero gradient takes no part.

    Cost: $O(\text{tasks}^3)$ on the CPU, a few times.

    Departures: none from the paper. The authors' code stops a general least-squares solver early, multiplies by
    the number of tasks and clips the gradient's norm to 1; here none of that is done.

    Args:
        alpha: Kind of fairness, at least 0.

    Raises:
        ValueError: If `alpha` is negative or not finite.

    References:
        Ban, Ji, `Fair Resource Allocation in Multi-Task Learning <https://arxiv.org/abs/2402.15638>`_, ICML 2024,
        equation 4 and Algorithm 1.

    Examples:
        >>> FairGrad()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.0766, 0.9985, 0.9985])
    """

    requires = "gramian"
    scale: ClassVar[str] = "norm √tasks at alpha=1"
    paper = "Ban & Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024, https://arxiv.org/abs/2402.15638"

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = positive("alpha", alpha, zero=True)
        self.scale_invariant = self.alpha == 1  # S G S w = w^(-1/alpha) is solved by S⁻¹ times the weights of G

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        num_tasks = len(step.tasks)
        if self.alpha == 0:
            return step.leave(torch.from_numpy(np.full(num_tasks, 1 / num_tasks)))
        # G w = w^(-1/α), as w^(1/α) G w = 1.
        found, outcome = fair_weights(step.gramian.numpy(), 1 / self.alpha, relative_precision(step.like, num_tasks))
        note_outcome(self, outcome)
        return step.leave(torch.from_numpy(found))
