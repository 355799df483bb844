"""Main tasks and the others: the base of PriorityProjection and AuxiliaryGate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.arguments import TaskKey, task_indices
from mtl_opt.combiners.common.solvers import relative_precision, unit_rows


class AroundMain(Combiner, ABC):
    """Weight the other tasks relative to the main ones; a step without any main task takes the mean.

    Args:
        main: The main tasks, by name or index.
    """

    def __init__(self, main: TaskKey | Sequence[TaskKey] = (0,)) -> None:
        super().__init__()
        self.main = main
        self.main_tasks: list[int] = []

    @override
    def allocate(self, num_tasks: int) -> None:
        """Find the main tasks."""
        assert self.tasks is not None
        assert len(self.tasks) == num_tasks
        self.main_tasks = task_indices("main", self.main, self.tasks)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        is_main = np.isin(step.tasks, self.main_tasks)
        if not is_main.any():
            return self.mean_instead(step, "no task of `main` is present")
        cosines, lengths = unit_rows(step.gramian.numpy())
        found = self.around(cosines, lengths, is_main, relative_precision(step.like, len(lengths)))
        if found is None:
            return self.mean_instead(step, "the non-negative least squares did not converge", warn=True)
        return step.leave(torch.from_numpy(found))

    @abstractmethod
    def around(
        self,
        cosines: np.ndarray,  # [tasks, tasks]
        lengths: np.ndarray,  # [tasks]
        is_main: np.ndarray,  # [tasks]
        precision: float,
    ) -> np.ndarray | None:  # [tasks]
        """Compute the weights of a step with at least one main task."""
