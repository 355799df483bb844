"""Plain joint training: the sum of the task gradients."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner


class Sum(Combiner):
    r"""Add the task gradients: the update of plain joint training.

    $$ d = \sum_i g_i $$

    Every task has weight 1, whatever conflicts.

    Scale: sum (all weights are 1).

    Undefined: nowhere.

    Cost: none.

    Departures: none.

    References:
        Caruana, `Multitask Learning <https://doi.org/10.1023/A:1007379606734>`_, Machine Learning 1997, the section on
        multitask learning in backpropagation nets (number not verified).

    Examples:
        >>> Sum()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([2., 2., 2.])
    """

    requires = "losses"
    scale: ClassVar[str] = "sum"
    paper = "Caruana, Multitask Learning, Machine Learning 1997, https://doi.org/10.1023/A:1007379606734"

    def __init__(self) -> None:
        super().__init__()

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        return step.leave(torch.ones(len(step.tasks)))
