"""Multi-objective descent with double sampling."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.solvers import project_onto_simplex


class MoDo(Combiner):
    r"""Move the weights one step towards the shortest update, by products of gradients from two independent samples.

    With the gradients $J_1, J_2$ of two independent halves of every task's rows, and the projection $\Pi$ onto the
    simplex:

    $$ w \leftarrow \Pi\Bigl(w - \gamma\, (J_1 J_2^\top + \rho I)\, w\Bigr), \qquad
       d = \sum_i w_i\, \frac{g_{1,i} + g_{2,i}}{2} $$

    The products of one sample with itself would be biased by the noise of its rows; those of two are not.

    Scale: simplex (the weights add up to 1, and start equal). $\gamma$ is not invariant: it acts on squared gradient
    norms, so that for large gradients the weights jump to a corner. The present tasks share what weight they have among
    themselves.

    Undefined: nowhere.

    Cost: $O(\text{tasks}^2)$ on the CPU; two rows per task in memory.

    Departures: the authors' code adds both halves up and leaves the factor 1/2 to the learning rate. Its default
    rates are those here; LibMTL's version takes $\gamma$ = 0.001. Whether the paper's experiments use one of them was
    not verified.

    Args:
        gamma: Rate $\gamma$ of the weights, positive, per unit of squared gradient norm.
        rho: Strength $\rho$ of the pull towards equal weights, at least 0.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Chen, Fernando, Ying, Chen, `Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization and
        Conflict-Avoidance <https://arxiv.org/abs/2305.20057>`_, NeurIPS 2023 and JMLR 2024, Algorithm 1
        (number not verified).

    Examples:
        >>> halves = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 1.0]]])  # [2, tasks, params]
        >>> MoDo(gamma=0.1, rho=0.0)(halves)
        tensor([0.8500, 0.5750])
    """

    requires = "halves"
    scale: ClassVar[str] = "simplex"
    paper = "Chen et al., Three-Way Trade-Off in Multi-Objective Learning, JMLR 2024, https://arxiv.org/abs/2305.20057"
    learnt: Tensor  # [tasks]

    def __init__(self, gamma: float = 0.1, rho: float = 0.1) -> None:
        super().__init__()
        self.gamma, self.rho = positive("gamma", gamma), positive("rho", rho, zero=True)

    @override
    def allocate(self, num_tasks: int) -> None:
        """Start with equal weights."""
        self.register_buffer("learnt", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        num_tasks = len(step.tasks)
        mass = float(self.learnt[step.tasks].sum())
        old = self.learnt[step.tasks].numpy() / mass if mass > 0 else np.full(num_tasks, 1 / num_tasks)
        # w ← Π(w - γ (J₁J₂ᵀ + ρI) w), on weights scaled to add up to 1 over the present tasks.
        new = project_onto_simplex(old - self.gamma * (step.gramian.numpy() @ old + self.rho * old))
        self.learnt[step.tasks] = torch.from_numpy(new * mass)
        return step.leave(torch.from_numpy(new))
