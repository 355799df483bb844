"""Means over the real tokens of every task, as one small product, for terms that a module adds to the losses."""

from typing import Any

import torch
from torch import Tensor, nn

from mtl_opt.batch import current_task_rows


class TokenMeans:
    """Know which tokens of the batch are real and whose they are, once for all layers of a forward.

    Args:
        num_tasks: Number of tasks.
    """

    def __init__(self, num_tasks: int) -> None:
        self.num_tasks = num_tasks
        self._mask: Tensor | None = None
        self._ids: Tensor | None = None
        self._known: dict[tuple[str, torch.Size], Tensor] = {}

    def see_mask(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:  # noqa: ARG002
        """Remember the mask that the model is called with: a forward pre-hook.

        Args:
            module: The model.
            inputs: What it is called with.
            options: The same by name.
        """
        mask = options.get("attention_mask")
        self._mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        self._known.clear()

    def owners(self, shape: torch.Size) -> Tensor | None:  # -> [tokens]
        """Say which task owns each token.

        Args:
            shape: Shape of the tokens; it begins with that of the ids that are open. `[*ids, ...]`

        Returns:
            A task per token; None where nothing says whose rows these are. `[tokens]`
        """
        ids = self._current()
        if ids is None:
            return None
        key = ("owners", shape)
        if key not in self._known:
            self._known[key] = ids.view(*ids.shape, *[1] * (len(shape) - ids.dim())).expand(shape).flatten()
        return self._known[key]

    def matrix(self, shape: torch.Size) -> Tensor | None:  # -> [tasks, tokens]
        """Give what turns values of tokens into means over the real tokens of each task.

        Args:
            shape: Shape of the tokens. `[*ids, ...]`

        Returns:
            1 / count where a token is real and the task's own, 0 elsewhere and for absent tasks; None where nothing
            says whose rows these are. `[tasks, tokens]`
        """
        owners = self.owners(shape)
        if owners is None:
            return None
        key = ("matrix", shape)
        if key not in self._known:
            own = owners == torch.arange(self.num_tasks, device=owners.device)[:, None]
            if self._mask is not None and self._mask.shape == shape:
                own = own & self._mask.flatten().bool().to(own.device)
            real = own.float()
            self._known[key] = real / real.sum(1, keepdim=True).clamp(min=1)
        return self._known[key]

    def _current(self) -> Tensor | None:
        """Give the open ids, and forget what was known of others."""
        ids = current_task_rows()
        if ids is not self._ids:
            self._ids = ids
            self._known.clear()
        return ids
