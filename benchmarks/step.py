"""One training step as it is timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.workload import Workload

Method = Literal["pcgrad", "weighted"]
"""How task gradients are combined: "pcgrad" is what is timed, "weighted" (fixed weights, different for each task) has
one right answer whatever the order of the tasks."""


@dataclass(frozen=True)
class Step:
    """Take one training step up to the gradient; the optimizer, the same for all, is left out.

    Attributes:
        fill: Forward, backward and combination: leaves the combined gradient in `.grad`.
        zero: Makes ready for the next step.
        buffer_bytes: What it keeps of the size of the gradients between steps.
    """

    fill: Callable[[], None]
    zero: Callable[[], None]
    buffer_bytes: int = 0

    def __call__(self) -> None:
        """Take the step."""
        self.fill()
        self.zero()


def fixed_weights(work: Workload) -> Tensor:  # [tasks]
    """Give every task a weight of its own, so that exchanged tasks are seen."""
    return torch.arange(1, work.num_tasks + 1, dtype=torch.float32, device=work.device) / work.num_tasks


def emptier(parameters: Sequence[nn.Parameter]) -> Callable[[], None]:
    """Build what empties `.grad`."""

    def zero() -> None:
        for parameter in parameters:
            parameter.grad = None

    return zero
