"""Task weights by how far each task is from convergence."""

from collections.abc import Sequence
from typing import ClassVar, NoReturn

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.row_memory import RowMemory, no_weights, squared_norms
from mtl_opt.combiners.inputs import detached_rows


class ExcessMTL(Combiner):
    r"""Shift weight to tasks whose excess risk, estimated from the history of their gradients, is still large.

    $$ E_i = \sum_k \frac{g_{ik}^2}{\sqrt{S_{ik}}}, \quad S_{ik} = \sum_{s \le t} g_{ik,s}^2, \qquad
       w_i \propto w_i \exp\Bigl(\eta \frac{E_i}{E_i(0)}\Bigr), \qquad d = \sum_i w_i g_i $$

    $E_i(0)$ is the task's first positive estimate; its weight does not move in that step.

    Scale: simplex (the weights of all tasks add up to 1, and start equal). When some tasks are absent, the present ones
    keep their own sum.

    Undefined: a task whose gradient has always been zero keeps its share.

    Cost: one more `[tasks, params]` buffer, read and written once a step.

    Departures: the paper takes $E_i(0)$ from three epochs of warm-up; here, as in the authors' code, from the first
    step. The authors' code starts the weights at 1 and keeps their sum at the number of tasks; here they lie on the
    simplex as in the paper. Its 1e-7 inside the root, which small gradients do not reach, is left out.

    Args:
        lr: Step size η of the exponentiated update, per step.

    Raises:
        ValueError: If `lr` is not positive.

    References:
        He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi, Zhao, `Robust Multi-Task Learning with Excess Risks
        <https://arxiv.org/abs/2402.02009>`_, ICML 2024, equations 6, 7 and 9.

    Examples:
        >>> combiner = ExcessMTL(lr=1.0)
        >>> combiner(torch.tensor([[4.0, 0.0], [0.0, 4.0]]))
        tensor([2., 2.])
        >>> combiner(torch.tensor([[4.0, 0.0], [0.0, 0.0]]))  # the second task has converged
        tensor([2.6790, 0.0000])
    """

    requires = "jacobian"
    scale: ClassVar[str] = "simplex"
    paper = "He et al., Robust Multi-Task Learning with Excess Risks, ICML 2024, https://arxiv.org/abs/2402.02009"
    log_weights: Tensor  # [tasks]
    first_risks: Tensor  # [tasks]

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.lr = positive("lr", lr)

    def allocate(self, num_tasks: int) -> None:
        """Start with equal weights, no gradient seen."""
        equal = -torch.full((num_tasks,), float(num_tasks), dtype=torch.float64).log()
        self.register_buffer("log_weights", equal)
        self.register_buffer("first_risks", torch.zeros(num_tasks, dtype=torch.float64))
        self.squares = RowMemory(num_tasks)

    @override
    def forward(self, jacobian: Tensor, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None) -> Tensor:
        rows = detached_rows(jacobian)
        step = self.enter(squared_norms(rows), losses, tasks)
        risks = self._risks(rows, step.tasks)
        known = self.first_risks[step.tasks]
        ratio = torch.where(known > 0, risks / known.clamp(min=1e-300), 0.0).clamp(max=1e100)
        self.first_risks[step.tasks] = torch.where(known > 0, known, risks)
        # w_i ← w_i exp(η E_i / E_i(0)), in logarithms, with the sum of the present weights kept.
        old = self.log_weights[step.tasks]
        new = old + self.lr * ratio
        self.log_weights[step.tasks] = new - new.logsumexp(0) + old.logsumexp(0)
        return (self.log_weights[step.tasks].exp().to(rows) @ rows).to(jacobian.dtype)

    def _risks(self, rows: Tensor, tasks: list[int]) -> Tensor:  # [present, params] -> [present]
        """Update S_i += g_i² and estimate E_i = Σ_k g_ik² / √S_ik, row by row to save memory."""
        history = self.squares.like(rows)
        tiny = torch.finfo(rows.dtype).tiny
        risks = []
        for row, task in zip(rows, tasks, strict=True):
            squares = row.square()
            history[task] += squares
            risks.append((squares / history[task].sqrt().clamp(min=tiny)).sum(dtype=torch.float64))
        return torch.stack(risks).cpu()

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> NoReturn:
        raise no_weights("ExcessMTL", "they come from the history of every single coordinate")
