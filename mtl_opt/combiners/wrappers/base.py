"""The base of all wrappers: a combiner around a combiner."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from mtl_opt.combiners.base import Combiner


class Wrapper(Combiner):
    """Wrap another combiner and require what it requires; its state is saved inside the wrapper's.

    Args:
        combiner: The wrapped combiner.
    """

    scale: ClassVar[str] = "that of the wrapped combiner"

    def __init__(self, combiner: Combiner) -> None:
        super().__init__()
        self.inner = combiner
        self.requires = combiner.requires
        self.over = combiner.over
        self.observes = combiner.observes
        self.by = combiner.by
        self.scale_invariant = combiner.scale_invariant
        self.window = combiner.window

    def allocate(self, num_tasks: int) -> None:
        """Bind the wrapped combiner to the same tasks."""
        assert self.tasks is not None
        assert len(self.tasks) == num_tasks
        self.inner.bind(self.tasks)

    def observe(self, losses: Tensor, *, tasks: Sequence[int] | None = None) -> None:  # [tasks]
        """Pass the losses measured after the step to the wrapped combiner."""
        self.inner.observe(losses, tasks=tasks)

    def inner_weights(
        self,
        gramian: Tensor | Mapping[str, Tensor] | None,
        blocks: Mapping[str, Tensor | None],
        losses: Tensor | None,
        tasks: Sequence[int],
    ) -> Any:  # a Tensor, or one per block around `Scoped`
        """Compute the weights of the wrapped combiner."""
        asked: Any = gramian if self.by is None else blocks
        return self.inner.weights(asked, losses, tasks=tasks)


def need_weights(combiner: Combiner, wrapper: str) -> None:
    """Raise for a combiner that has no weights."""
    if combiner.requires == "jacobian":
        raise ValueError(f"`{wrapper}` must wrap a combiner with weights; `{type(combiner).__name__}` has none.")
