"""What `TaskGradients` keeps of the step under way, and what it asks of a combiner."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


class CombinerLike(Protocol):
    """What `TaskGradients.combine` needs of a combiner; `gradients` imports none."""

    @property
    def requires(self) -> str:
        """Name the cheapest input that is enough."""

    @property
    def over(self) -> str | Sequence[str]:
        """Name the layers whose Gramian is wanted."""

    def bind(self, tasks: Sequence[str]) -> None:
        """Take the names of the tasks."""

    def weights(self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Any = None) -> Tensor:
        """Compute `[tasks]` weights from `[tasks, tasks]`."""

    def __call__(self, jacobian: Tensor, losses: Tensor | None = None, *, tasks: Any = None) -> Tensor:
        """Combine `[tasks, params]` to `[params]`."""


@dataclass
class StepState:
    """What is known of the step under way."""

    closed: bool = False
    written: bool = False
    totals: Tensor | None = None  # [tasks], counts so far; None before the first backward
    sums: Tensor | None = None  # [tasks], counts times losses
    present: list[int] = field(default_factory=list)
    gramian: Tensor | None = None  # [tasks, tasks]
    penalty: Tensor | None = None  # [params]
