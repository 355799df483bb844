"""A task discriminator on shared features: it learns to tell the tasks apart, the features learn to prevent it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mtl_opt.batch import Segments, current_task_rows


class TaskDiscriminator(nn.Module):
    """Classify a shared feature by the task of its row: `softmax(D z + d)`, `z` scaled to mean square 1.

    The features see the reversed gradient of its cross-entropy, as a term of their own task that is 0 in value. The
    discriminator's own gradient is summed beside it and handed out by `own_term`, so that it is no row of any task
    and takes no part in what a combiner compares.

    Args:
        dim: Features.
        num_tasks: Number of tasks.
        strength: What both gradients are multiplied by.
    """

    training_only = True

    def __init__(self, dim: int, num_tasks: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.classifier = nn.Linear(dim, num_tasks)
        self.num_tasks = num_tasks
        self._term: Tensor | None = None
        self._taken: Segments | None = None  # rows whose term was taken: they run again only to be recomputed
        self._sums: Tensor | None = None  # [tasks, tasks, dim + 1], p - y times the feature, by task of the row
        self._counts: Tensor | None = None  # [tasks]
        self._current: Segments | None = None

    @override
    def forward(self, features: Tensor, segments: Segments, kept: Tensor | None) -> None:
        """Compute the adversarial term and accumulate the discriminator's own gradient."""
        ids = current_task_rows()
        assert ids is not None
        with torch.autocast(features.device.type, enabled=False):
            z = features.float()
            z = z * (z.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
            owner = ids.to(z.device).view(*ids.shape, *[1] * (z.dim() - 1 - ids.dim())).expand(z.shape[:-1])
            counted = torch.ones_like(owner, dtype=z.dtype) if kept is None else kept.to(z)
            weight, bias = self.classifier.weight.detach(), self.classifier.bias.detach()
            logits = F.linear(z, weight, bias).flatten(0, -2)
            chosen, counted = owner.flatten(), counted.flatten()
            entropy = F.cross_entropy(logits, chosen, reduction="none") * counted
            counts = torch.zeros(self.num_tasks, device=z.device).index_add(0, chosen, counted)
            mean = torch.zeros_like(counts).index_add(0, chosen, entropy) / counts.clamp(min=1)
        if self._taken is segments:
            return
        # Gradient reversal: 0 in value, with the gradient -λ ∇ CE for the features.
        self._term = self.strength * (mean.detach() - mean)
        self._count(z.detach().flatten(0, -2), logits.detach(), chosen, counted)
        self._current = segments

    def _count(
        self,
        z: Tensor,  # [tokens, dim]
        logits: Tensor,  # [tokens, tasks]
        chosen: Tensor,  # [tokens]
        counted: Tensor,  # [tokens]
    ) -> None:
        """Accumulate the discriminator's gradient by the task of the tokens."""
        # The gradient of softmax cross-entropy with respect to the logits is p - y.
        known = F.one_hot(chosen, self.num_tasks).to(z)
        wrong = (logits.softmax(-1) - known) * counted[:, None]
        left = (known[:, :, None] * wrong[:, None, :]).flatten(1)  # [tokens, tasks · tasks]
        found = left.T @ torch.cat([z, torch.ones_like(z[:, :1])], 1)
        sums = found.view(self.num_tasks, self.num_tasks, -1)
        counts = (known * counted[:, None]).sum(0)
        self._sums = sums if self._sums is None else self._sums + sums
        self._counts = counts if self._counts is None else self._counts + counts

    def take_row_terms(self) -> Tensor | None:  # -> [tasks]
        """Return the term of the last rows, once."""
        term, self._term = self._term, None
        self._taken = self._current
        return term

    def take_sums(self) -> Tensor:  # -> [tasks, tasks * (dim + 1) + 1]
        """Return the sums over the micro-batches of a step, to be summed over processes, and reset them."""
        if self._sums is None or self._counts is None:
            size = self.num_tasks * (self.classifier.in_features + 1) + 1
            return torch.zeros(self.num_tasks, size, device=self.classifier.weight.device)
        found = torch.cat([self._sums.flatten(1), self._counts[:, None]], 1)
        self._sums = self._counts = None
        return found

    def own_term(self, sums: Tensor) -> Tensor:  # [tasks, tasks * (dim + 1) + 1] -> []
        """Turn sums into a term whose gradient is that of the discriminator's cross-entropy."""
        counts = sums[:, -1:]
        present = (counts > 0).sum().clamp(min=1)
        mean = self.strength * (sums[:, :-1] / counts.clamp(min=1)).sum(0) / present
        gradient = mean.view(self.num_tasks, -1)
        return (gradient[:, :-1] * self.classifier.weight).sum() + (gradient[:, -1] * self.classifier.bias).sum()
