"""GradNorm with autograd on the weights and `torch.optim.Adam`, as Algorithm 1 of Chen et al. 2018."""

from collections.abc import Sequence

import torch
from torch import Tensor


class GradNormReference:
    """Hold one weight per task, each a leaf of its own so that Adam skips the tasks that are absent."""

    def __init__(self, num_tasks: int, alpha: float, lr: float, floor: float) -> None:
        self.alpha = alpha
        self.floor = floor
        self.learnt = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(num_tasks)]
        self.first: dict[int, Tensor] = {}
        self.optimizer = torch.optim.Adam(self.learnt, lr=lr)

    def step(self, gradients: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """Return the weights of this step `[present]` and learn those of the next."""
        used = torch.stack([self.learnt[t].detach().clone() for t in tasks])
        for loss, task in zip(losses, tasks, strict=True):
            self.first.setdefault(task, loss.clone())
        ratio = torch.stack([loss / self.first[t] for loss, t in zip(losses, tasks, strict=True)])
        rate = ratio / ratio.mean()
        norms = torch.stack([(self.learnt[t] * g).norm() for g, t in zip(gradients, tasks, strict=True)])
        target = (norms.mean() * rate**self.alpha).detach()
        self.optimizer.zero_grad()
        (norms - target).abs().sum().backward()
        self.optimizer.step()
        with torch.no_grad():
            new = torch.stack([self.learnt[t] for t in tasks]).clamp(min=self.floor)
            for value, task in zip(new * used.sum() / new.sum(), tasks, strict=True):
                self.learnt[task].copy_(value)
        return used
