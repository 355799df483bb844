"""Dual balancing: logarithms of the losses, and all gradients as long as the longest."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import fraction, positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.losses import non_negative_losses
from mtl_opt.combiners.common.row_memory import RowMemory, no_weights, squared_norms
from mtl_opt.combiners.inputs import detached_rows

OFFSET = 1e-8


class DBMTL(Combiner):
    r"""Add up moving averages of the gradients of the log losses, each scaled to the length of the longest.

    With step $t$ counted from 1 and $\beta_t = \beta / t^\sigma$:

    $$ y_i \leftarrow \beta_t\, y_i + (1 - \beta_t)\, \nabla \log(L_i + 10^{-8}), \qquad
       d = \max_j \lVert y_j \rVert \sum_i \frac{y_i}{\lVert y_i \rVert}, \qquad
       \nabla \log(L_i + 10^{-8}) = \frac{g_i}{L_i + 10^{-8}} $$

    With $\beta = 0$ there is no average: the update is a weighted sum of this step's gradients,
    $w_i = \max_j (\lVert g_j \rVert / (L_j + 10^{-8})) / \lVert g_i \rVert$, and the object then requires a Gramian
    only and has `weights`.

    Scale: sum, at the length of the longest average. The averages start at 0 without correction, as in the paper: with
    $\beta = 0.9$ the first update is a tenth as long. An absent task keeps its average and its count of steps.

    Undefined: a task whose average is zero adds nothing.

    Cost: one more `[tasks, params]` buffer, read twice and written once a step; with $\beta = 0$ none.

    Departures: none from the paper. The authors' code adds 1e-8 to the norms, which small gradients do not reach;
    here a zero is handled apart.

    Args:
        beta: Decay of the averages, at least 0, below 1.
        sigma: How fast the decay itself fades, at least 0.

    Raises:
        ValueError: If an argument is out of range, no losses are passed, or one is negative.

    References:
        Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Tsang, Kwok, `Dual-Balancing for Multi-Task Learning
        <https://arxiv.org/abs/2308.12029>`_, 2023, Algorithm 1 (number not verified).

    Examples:
        >>> rows = torch.tensor([[3.0, 0.0], [0.0, 8.0]])
        >>> DBMTL(beta=0)(rows, torch.tensor([1.0, 2.0]))  # log gradients of length 3 and 4
        tensor([4., 4.])
        >>> DBMTL(beta=0.5)(rows, torch.tensor([1.0, 2.0]))
        tensor([2., 2.])
    """

    requires: Literal["losses", "gramian", "halves", "window", "jacobian"] = "jacobian"  # "gramian" at beta=0
    scale_invariant = True
    scale: ClassVar[str] = "sum, at the longest norm"
    paper = "Lin et al., Dual-Balancing for Multi-Task Learning, 2023, https://arxiv.org/abs/2308.12029"
    steps: Tensor  # [tasks]

    def __init__(self, beta: float = 0.9, sigma: float = 0.0) -> None:
        super().__init__()
        self.beta, self.sigma = fraction("beta", beta), positive("sigma", sigma, zero=True)
        if beta == 0:
            self.requires = "gramian"

    def allocate(self, num_tasks: int) -> None:
        """Start with no gradient seen."""
        if self.beta > 0:
            self.register_buffer("steps", torch.zeros(num_tasks, dtype=torch.float64))
            self.tracked = RowMemory(num_tasks)

    @override
    def forward(self, jacobian: Tensor, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None) -> Tensor:
        if self.beta == 0:
            return super().forward(jacobian, losses, tasks=tasks)
        rows = detached_rows(jacobian)
        step = self.enter(squared_norms(rows), losses, tasks)
        log_scale = 1 / (torch.from_numpy(non_negative_losses(self, step)) + OFFSET)
        # Algorithm 1: y ← β_t y + (1 - β_t) ∇log(L + 1e-8), where β_t = β / t^σ and ∇log(L + 1e-8) = g / (L + 1e-8).
        self.steps[step.tasks] += 1
        decay = self.beta / self.steps[step.tasks] ** self.sigma
        tracked = self.tracked.like(rows)
        new_share = ((1 - decay) * log_scale).tolist()
        for row, task, kept, share in zip(rows, step.tasks, decay.tolist(), new_share, strict=True):
            tracked[task].mul_(kept).add_(row, alpha=share)
        present = tracked if step.tasks == list(range(len(tracked))) else tracked[step.tasks]
        lengths = torch.linalg.vector_norm(present, dim=1)
        return (_to_longest(lengths, lengths) @ present).to(jacobian.dtype)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        if self.beta > 0:
            raise no_weights(
                "DBMTL", "with `beta` above 0 its update is a sum of tracked gradients, not of this step's"
            )
        step = self.enter(gramian, losses, tasks)
        lengths = step.gramian.diagonal().sqrt()
        return step.leave(_to_longest(lengths, lengths / (torch.from_numpy(non_negative_losses(self, step)) + OFFSET)))


def _to_longest(lengths: Tensor, compared: Tensor) -> Tensor:  # [present], [present] -> [present]
    """Compute the factors that make every row as long as the largest of `compared`; 0 for a zero row."""
    return torch.where(lengths > 0, compared.max() / lengths.clamp(min=torch.finfo(lengths.dtype).tiny), 0.0)
