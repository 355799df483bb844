"""Projection onto the cone of directions that conflict with no task: the base of UPGrad and DualProj."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.arguments import check_preference, keep_numbers
from mtl_opt.combiners.common.solvers import over_lengths, relative_precision, unit_rows


class ConeProjection(Combiner, ABC):
    """Project preferred gradients into the cone of directions that conflict with no task.

    Args:
        preference: Weight of every gradient, by task name or in task order, positive; not normalised. Default: 1 over
            the number of present tasks.
    """

    def __init__(self, preference: Mapping[str, float] | Sequence[float] | None = None) -> None:
        super().__init__()
        check_preference(preference)
        self.preference = preference

    @override
    def allocate(self, num_tasks: int) -> None:
        """Resolve the names to one preference per task; without any there is nothing to keep."""
        if self.preference is not None:
            keep_numbers(self, "preferred", "preference", self.preference, self.tasks)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        num_tasks = len(step.tasks)
        preferred = np.full(num_tasks, 1 / num_tasks)
        if self.preference is not None:
            preferred = self.get_buffer("preferred")[step.tasks].numpy()
        inner = step.gramian.numpy()
        if (inner >= 0).all():
            return step.leave(torch.from_numpy(preferred))
        cosines, lengths = unit_rows(inner)
        added = self.added(cosines, preferred * lengths, relative_precision(step.like, num_tasks))
        if added is None:
            self.note("the non-negative least squares did not converge: the step takes the preference", warn=True)
            return step.leave(torch.from_numpy(preferred))
        return step.leave(torch.from_numpy(preferred + over_lengths(added, lengths)))

    @abstractmethod
    def added(
        self,
        cosines: np.ndarray,  # [tasks, tasks]
        preferred: np.ndarray,  # [tasks]
        precision: float,
    ) -> np.ndarray | None:  # [tasks]
        """Compute the coefficients of the unit gradients that the projection adds."""
