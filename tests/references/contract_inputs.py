"""Gradients and losses that every combiner is tried on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_opt.combiners import Combiner

LOSSES = torch.tensor([2.0, 0.5, 1.0, 3.0, 0.1, 0.7, 1.5, 2.5], dtype=torch.float64)


def jacobian(num_tasks: int = 3, num_params: int = 7, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Draw gradients in float64 and round them to `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tasks, num_params, generator=generator, dtype=torch.float64).to(dtype)


def given(method: type[Combiner] | Combiner, rows: Tensor) -> Tensor:
    """Shape rows as a method takes them: two equal halves for one that requires halves."""
    return torch.stack([rows, rows]) if method.requires == "halves" else rows


def run(
    combiner: Combiner, num_steps: int, tasks: Sequence[int] | None = None, num_tasks: int = 3, first: int = 0
) -> Tensor:  # [steps, tasks]
    """Collect the weights of some steps; the gradients and losses of a step depend on its number alone.

    A combiner that observes is shown losses after every step.
    """
    seen = []
    for step in range(first, first + num_steps):
        rows, losses = jacobian(num_tasks, seed=step), LOSSES[:num_tasks] * (1 + step)
        if tasks is not None:
            rows, losses = rows[tasks], losses[tasks] / (1 + step) ** 2
        seen.append(combiner.weights(rows @ rows.T, losses, tasks=tasks))
        if combiner.observes != "nothing":
            after = losses * torch.linspace(0.5, 1.2, num_tasks, dtype=losses.dtype)[tasks or slice(None)]
            combiner.observe(after, tasks=tasks)
    return torch.stack(seen)
