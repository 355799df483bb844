"""The factor of every row before a combiner sees it: what decides how hard a task pulls at the shared parameters."""

from collections.abc import Mapping, Sequence
from math import isfinite

import torch
from torch import Tensor

LOSS_REDUCTIONS = ("rows", "tokens", "task")
"""What a row is scaled by besides the task's weight: its rows over the mean rows of the present tasks, its label
tokens over their mean, or nothing."""


class RowScales:
    """Compute the scale of each task's row: its weight, times its part of the step under `rows` or `tokens`.

    The row of a task is the gradient of its *mean* loss, so that twice as many rows make it less noisy and no longer.
    With the scale its length follows its share of the step, relative to the mean over the present tasks: equal shares
    are scaled by 1.

    Args:
        tasks: Names of the tasks.
        loss_reduction: One of `LOSS_REDUCTIONS`.
        task_weights: Weight by task, at least 0; 1 for those not named.

    Raises:
        ValueError: If the reduction or a task is unknown, a weight is not allowed, or all are 0.
    """

    def __init__(self, tasks: Sequence[str], loss_reduction: str, task_weights: Mapping[str, float] | None) -> None:
        if loss_reduction not in LOSS_REDUCTIONS:
            raise ValueError(f"`loss_reduction` must be one of {', '.join(LOSS_REDUCTIONS)}, got {loss_reduction!r}.")
        given = dict(task_weights or {})
        unknown = sorted(set(given) - set(tasks))
        if unknown:
            raise ValueError(f"`task_weights` names unknown tasks {unknown}; tasks are {list(tasks)}.")
        values = [float(given.get(task, 1.0)) for task in tasks]
        if any(not isfinite(value) or value < 0 for value in values) or not any(values):
            raise ValueError(f"`task_weights` must be finite, at least 0 and not all 0, got {given}.")
        self.loss_reduction = loss_reduction
        self.weights = torch.tensor(values, dtype=torch.float64)

    def of_step(self, counts: Tensor, num_rows: Tensor) -> Tensor:  # [tasks], [tasks] -> [tasks]
        """Compute the scales of a step from the label tokens and rows of its tasks; 0 for absent tasks."""
        present = (counts > 0).to(counts)
        scales = self.weights.to(counts) * present
        if self.loss_reduction == "task":
            return scales
        size = present * (num_rows if self.loss_reduction == "rows" else counts).to(counts)
        return scales * size * present.sum() / size.sum()
