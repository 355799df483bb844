"""Fixed task weights."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.arguments import keep_numbers


class Weighted(Combiner):
    r"""Weight every task by a fixed number chosen by the user.

    $$ d = \sum_i \alpha_i\, g_i $$

    The baseline that a tuned grid search reaches.

    Scale: as given. Nothing is normalised, so that the size of the weights multiplies the step.

    Undefined: nowhere.

    Cost: none.

    Departures: none.

    Args:
        task_weights: Weight of each task, by name or in task order; at least 0, not all 0. Default: 1 for every
            task. Under `mtl-opt train` the `tasks.NAME.weight` scale the gradients before any combiner, so that one
            of the two says how tasks are weighted.

    Raises:
        ValueError: If a weight is negative or not finite, all are 0, or (at `bind`) a task has none.

    References:
        Kurin, De Palma, Kostrikov, Whiteson, Kumar, `In Defense of the Unitary Scalarization for Deep Multi-Task
        Learning <https://arxiv.org/abs/2201.04122>`_, NeurIPS 2022, section on
        unitary scalarization (number not verified).

    Examples:
        >>> import torch
        >>> Weighted([1.0, 0.5])(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([-1.0000,  1.5000,  1.5000])
    """

    requires = "losses"
    scale: ClassVar[str] = "as given"
    paper = "Kurin et al., In Defense of the Unitary Scalarization, NeurIPS 2022, https://arxiv.org/abs/2201.04122"

    def __init__(self, task_weights: Mapping[str, float] | Sequence[float] | None = None) -> None:
        super().__init__()
        self.task_weights = task_weights
        given = list(task_weights.values()) if isinstance(task_weights, Mapping) else list(task_weights or [1.0])
        if any(not math.isfinite(w) or w < 0 for w in given) or sum(given) == 0:
            raise ValueError(f"`task_weights` must be finite, at least 0 and not all 0, got {task_weights}.")

    @override
    def allocate(self, num_tasks: int) -> None:
        """Resolve the names to one weight per task."""
        given = 1.0 if self.task_weights is None else self.task_weights
        keep_numbers(self, "fixed", "task_weights", given, self.tasks)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        return step.leave(self.get_buffer("fixed")[step.tasks])
