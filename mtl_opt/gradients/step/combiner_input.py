"""The Gramian a combiner is given, and its weights for all tasks; index and position among the present meet here."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mtl_opt.gradients.step.step import Step
from mtl_opt.gradients.step.window import Window


class CombinerLike(Protocol):
    """The members of a combiner that `TaskGradients.combine` uses; `gradients` imports no combiner."""

    @property
    def requires(self) -> str:
        """Name the cheapest input that is enough."""

    @property
    def over(self) -> str | Sequence[str]:
        """Name the layers whose Gramian is wanted."""

    @property
    def by(self) -> str | None:
        """Name the blocks whose Gramians are wanted one by one; None for one Gramian."""

    def bind(self, tasks: Sequence[str]) -> None:
        """Bind the combiner to the names of the tasks."""

    def weights(self, gramian: Any, losses: Tensor | None = None, *, tasks: Any = None) -> Any:
        """Compute `[tasks]` weights from `[tasks, tasks]`, or both by block."""

    def __call__(self, jacobian: Tensor, losses: Tensor | None = None, *, tasks: Any = None) -> Tensor:
        """Combine `[tasks, params]` to `[params]`."""


def weights_from(combiner: CombinerLike, step: Step, window: Window | None) -> Any:  # -> [tasks] or {block: [tasks]}
    """Compute the weights of all tasks in a step; absent tasks get 0."""
    present = step.close().present
    found = combiner.weights(input_of(combiner, step, window), step.losses[present], tasks=present)
    return fill_absent(found, present, len(step.tasks))


def input_of(combiner: CombinerLike, step: Step, window: Window | None) -> Any:  # -> [present, present] or by block
    """Compute the Gramian that a combiner wants, of the tasks present in a step."""
    return sub_gramian(_gramian_for(combiner, step.close(), window), step.present)


def _gramian_for(combiner: CombinerLike, step: Step, window: Window | None) -> Any:  # -> [tasks, tasks] or by block
    """Compute the Gramian that a combiner wants, of all tasks."""
    by = getattr(combiner, "by", None)
    if by is not None:
        return step.buffer.gramians(by)
    if combiner.requires == "halves":
        return step.two_sample_gramian()
    if combiner.requires == "window":
        if window is None:
            raise ValueError(f"`{type(combiner).__name__}` needs the statistics of `TaskGradients(..., window=N)`.")
        return window.gramian(step.gramian())
    return step.gramian() if combiner.over == "all" else step.buffer.gramian_over(combiner.over)


def sub_gramian(found: Any, present: Sequence[int]) -> Any:  # found [tasks, tasks] -> [present, present]
    """Select the sub-Gramian of the present tasks, block by block where there are blocks."""
    if isinstance(found, Mapping):
        return {name: sub_gramian(block, present) for name, block in found.items()}
    return found[present][:, present]


def fill_absent(weights: Any, present: Sequence[int], num_tasks: int) -> Any:  # weights [present] -> [tasks]
    """Fill in weight 0 for absent tasks, block by block where there are blocks."""
    if isinstance(weights, Mapping):
        return {name: fill_absent(block, present, num_tasks) for name, block in weights.items()}
    filled = torch.zeros(num_tasks, dtype=weights.dtype, device=weights.device)
    filled[present] = weights
    return filled
