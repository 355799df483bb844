"""Stochastic multi-objective gradient correction: min-norm weights on tracked gradients."""

from collections.abc import Sequence
from typing import ClassVar, NoReturn

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.row_memory import RowMemory, no_weights, squared_norms
from mtl_opt.combiners.common.solvers import project_onto_simplex
from mtl_opt.combiners.inputs import detached_rows
from mtl_opt.linalg import gramian as gramian_of


class MoCo(Combiner):
    r"""Track every task's gradient by a moving average, and weights on the averages by projected descent of their norm.

    With step $t$ counted from 1 and $\Pi$ the projection onto the simplex:

    $$ y_i \leftarrow y_i - \frac{\beta}{\sqrt t} (y_i - g_i), \qquad
       w \leftarrow \Pi\Bigl(w - \frac{\gamma}{\sqrt t} (Y Y^\top + \rho I)\, w\Bigr), \qquad d = \sum_i w_i y_i $$

    The averages start at 0 and the weights equal. The noise of single batches, which biases the weights of MGDA,
    is averaged out of $y$.

    Scale: simplex on the averages, which need some steps to reach the size of the gradients. $\gamma$ is not invariant:
    it acts on squared gradient norms, so that for large gradients the weights jump to a corner. An absent task keeps
    its average, its weight and its count of steps; the present ones keep their own sum.

    Undefined: nowhere. A zero gradient is averaged like any other.

    Cost: one more `[tasks, params]` buffer, read twice and written once a step.

    Departures: the order of the updates within a step and the start at 0 are those of the authors' code, which keeps
    its rates constant (0.1 and 0.1, with ρ 0.1); here they fall with the root of the step. LibMTL's version replaces
    the projection by a softmax and scales every gradient to the length of its loss.

    Args:
        beta: Rate of the averages, from 0 (excluded) to 1, divided by the root of the step.
        gamma: Rate of the weights, positive, divided by the root of the step.
        rho: Strength of the pull towards equal weights, at least 0.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Fernando, Shen, Liu, Chaudhury, Murugesan, Chen, `Mitigating Gradient Bias in Multi-objective Learning: A
        Provably Convergent Approach <https://arxiv.org/abs/2210.12624>`_, ICLR 2023, Algorithm 1.

    Examples:
        >>> combiner = MoCo(beta=1.0)
        >>> combiner(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        tensor([0.5750, 0.8500])
    """

    requires = "jacobian"
    scale: ClassVar[str] = "simplex"
    paper = "Fernando et al., Mitigating Gradient Bias, ICLR 2023, https://arxiv.org/abs/2210.12624"
    learnt: Tensor  # [tasks]
    steps: Tensor  # [tasks]

    def __init__(self, beta: float = 0.5, gamma: float = 0.1, rho: float = 0.0) -> None:
        super().__init__()
        if not 0 < beta <= 1:
            raise ValueError(f"`beta` must be above 0 and at most 1, got {beta}.")
        self.beta = float(beta)
        self.gamma, self.rho = positive("gamma", gamma), positive("rho", rho, zero=True)

    def allocate(self, num_tasks: int) -> None:
        """Start with equal weights, no gradient seen."""
        self.register_buffer("learnt", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(num_tasks, dtype=torch.float64))
        self.tracked = RowMemory(num_tasks)

    @override
    def forward(self, jacobian: Tensor, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None) -> Tensor:
        rows = detached_rows(jacobian)
        step = self.enter(squared_norms(rows), losses, tasks)
        # Algorithm 1: y ← y - β/√t (y - g), then w ← Π(w - γ/√t (YYᵀ + ρI) w).
        self.steps[step.tasks] += 1
        decay = self.steps[step.tasks].rsqrt()
        tracked = self.tracked.like(rows)
        for row, task, rate in zip(rows, step.tasks, (self.beta * decay).tolist(), strict=True):
            tracked[task].lerp_(row, rate)
        present = tracked if step.tasks == list(range(len(tracked))) else tracked[step.tasks]
        old = self.learnt[step.tasks]
        inner = gramian_of(present).to("cpu", torch.float64)
        moved = old - self.gamma * decay * (inner @ old + self.rho * old)
        onto = project_onto_simplex(moved.numpy(), float(old.sum()))
        self.learnt[step.tasks] = torch.from_numpy(onto)
        return (self.learnt[step.tasks].to(rows) @ present).to(jacobian.dtype)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> NoReturn:
        raise no_weights("MoCo", "its update is a sum of tracked gradients, not of this step's")
