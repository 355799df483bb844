"""Uncertainty weighting with autograd on the log variances and `torch.optim.Adam`, as Kendall et al. 2018."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TOTALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # losses, log variances -> what is minimised
    "classification": lambda loss, s: (-s).exp() * loss + s / 2,
    "regression": lambda loss, s: (-s).exp() * loss / 2 + s / 2,
    "liebel_koerner": lambda loss, s: loss / (2 * s.exp()) + torch.log1p(s.exp()),
}


class UncertaintyReference:
    """Hold one log variance per task, each a leaf of its own so that Adam skips the tasks that are absent."""

    def __init__(self, num_tasks: int, form: str, lr: float) -> None:
        self.total = TOTALS[form]
        self.learnt = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(num_tasks)]
        self.optimizer = torch.optim.Adam(self.learnt, lr=lr)

    def step(self, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """Return the weights of this step `[present]`, the derivatives by the losses, and learn the next."""
        losses = losses.detach().clone().requires_grad_()
        self.optimizer.zero_grad()
        sum(self.total(loss, self.learnt[t]) for loss, t in zip(losses, tasks, strict=True)).backward()
        self.optimizer.step()
        assert losses.grad is not None
        return losses.grad
