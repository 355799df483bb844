"""Balance loss and z-loss of every task, from the logits of all routers in one forward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_opt.batch import current_task_rows
from mtl_opt.models.sharing.parts.routing import Padding

Said = tuple[Tensor, Tensor, Tensor]
"""Logits of a router `[tokens, experts]`, the experts that were picked `[tokens, top_k]`, and what takes means over the
tokens of every task `[tasks, tokens]`."""


class RouterTerms:
    """Collect what routers say, and know which tokens are real and whose they are, once for all layers of a forward.

    Args:
        num_tasks: Number of tasks.
        balance: Strength of the balance loss.
        z: Strength of the z-loss.
    """

    def __init__(self, num_tasks: int, balance: float, z: float) -> None:
        self.num_tasks, self.balance, self.z = num_tasks, balance, z
        self.largest_load: Tensor | None = None
        self._said: dict[int, Said] = {}  # by module: a forward whose terms nobody takes is overwritten by the next
        self.padding = Padding()
        self._seen: tuple[Tensor | None, Tensor | None] = (None, None)  # ids and mask that `_known` was made of
        self._known: dict[tuple[str, torch.Size], Tensor] = {}

    def keep(self, router: nn.Module, logits: Tensor, experts: Tensor, shape: torch.Size) -> None:
        """Keep what a router said in training; nothing where no task is known or both strengths are 0."""
        if not (self.balance or self.z) or _recomputing():  # then they were kept before
            return
        matrix = self._matrix(shape)
        if matrix is not None:
            self._said[id(router)] = (logits, experts, matrix)

    def take(self) -> Tensor | None:  # -> [tasks]
        """Compute the terms of what was kept, and forget it."""
        if not self._said:
            return None
        alike: dict[Any, list[Said]] = {}  # layers with the same tokens: all but, say, a pooler
        for said in self._said.values():
            alike.setdefault((said[0].shape, said[0].device, id(said[2])), []).append(said)
        layers = len(self._said)
        self._said = {}
        found = [self._terms(group) for group in alike.values()]
        self.largest_load = torch.stack([load.to(found[0][1].device) for _, load in found]).sum() / layers
        return torch.stack([terms.to(found[0][0].device) for terms, _ in found]).sum(0) / layers

    def _terms(self, said: Sequence[Said]) -> tuple[Tensor, Tensor]:  # -> [tasks], []
        """Sum the terms, and the share of the expert with most tokens, over some layers."""
        logits, matrix = torch.stack([one[0] for one in said]), said[0][2]  # [layers, tokens, experts]
        level = logits.logsumexp(-1, keepdim=True)
        with torch.no_grad():
            experts = torch.stack([one[1] for one in said])
            picked = torch.zeros_like(logits).scatter_(-1, experts, 1 / experts.shape[-1])
            shares = matrix @ picked  # [layers, tasks, experts]
            present = matrix.any(1).sum()
        probabilities = matrix @ (logits - level).exp()
        balance = logits.shape[-1] * (shares * probabilities).sum((0, 2))
        terms = self.balance * balance + self.z * (matrix @ level.square()).sum((0, 2))
        return terms, (shares.sum(1) / present).max(-1).values.sum()

    def owners(self, shape: torch.Size) -> Tensor | None:  # -> [tokens]
        """Return the task of each token, or None outside any context."""
        ids = self._current()
        if ids is None:
            return None
        key = ("owners", shape)
        if key not in self._known:
            self._known[key] = ids.view(*ids.shape, *[1] * (len(shape) - ids.dim())).expand(shape).flatten()
        return self._known[key]

    def _matrix(self, shape: torch.Size) -> Tensor | None:  # -> [tasks, tokens]
        """Build the matrix that averages over each task's real tokens; its rows are 0 for absent tasks."""
        owners = self.owners(shape)
        if owners is None:
            return None
        key = ("matrix", shape)
        if key not in self._known:
            own = owners == torch.arange(self.num_tasks, device=owners.device)[:, None]
            kept = self.padding.kept(shape)
            if kept is not None:
                own = own & kept.flatten().bool().to(own.device)
            real = own.float()
            self._known[key] = real / real.sum(1, keepdim=True).clamp(min=1)
        return self._known[key]

    def _current(self) -> Tensor | None:
        """Return the open task ids, and clear the cache when ids or mask have changed."""
        ids, mask = current_task_rows(), self.padding.mask
        if ids is not self._seen[0] or mask is not self._seen[1]:
            self._seen = (ids, mask)
            self._known.clear()
        return ids


def _recomputing() -> bool:
    """Return whether this forward is a recomputation by checkpointing, inside a backward."""
    return bool(torch._C._current_graph_task_id() != -1)
