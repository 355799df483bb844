"""What every wrapper is: a combiner around a combiner."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from mtl_opt.combiners.base import Combiner


class Wrapper(Combiner):
    """Hold another combiner and answer for what it needs; its state is saved inside the wrapper's.

    Args:
        combiner: What is wrapped.
    """

    scale: ClassVar[str] = "that of the wrapped combiner"

    def __init__(self, combiner: Combiner) -> None:
        super().__init__()
        self.inner = combiner
        self.requires = combiner.requires
        self.over = combiner.over
        self.observes = combiner.observes
        self.by = combiner.by
        self.window = combiner.window

    def allocate(self, num_tasks: int) -> None:
        """Give the wrapped combiner the same tasks."""
        assert self.tasks is not None
        assert len(self.tasks) == num_tasks
        self.inner.bind(self.tasks)

    def observe(self, losses: Tensor, *, tasks: Sequence[int] | None = None) -> None:  # [tasks]
        """Hand the losses measured after the step to the wrapped combiner."""
        self.inner.observe(losses, tasks=tasks)


def need_weights(combiner: Combiner, wrapper: str) -> None:
    """Refuse a combiner that has no weights."""
    if combiner.requires == "jacobian":
        raise ValueError(f"`{wrapper}` must wrap a combiner with weights; `{type(combiner).__name__}` has none.")
