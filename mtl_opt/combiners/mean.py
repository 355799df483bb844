"""The mean of the task gradients."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner


class Mean(Combiner):
    r"""Average the gradients of the tasks present in the step.

    $$ d = \frac{1}{m} \sum_{i=1}^m g_i $$

    Unlike `Sum`, its size does not grow with the number of tasks.

    Scale: mean (the weights add up to 1).

    Undefined: nowhere.

    Cost: none.

    Departures: none; the mean of the losses in place of their sum only rescales the step.

    References:
        Caruana, `Multitask Learning <https://doi.org/10.1023/A:1007379606734>`_, Machine Learning 1997, the section on
        multitask learning in backpropagation nets (number not verified).

    Examples:
        >>> Mean()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([1., 1., 1.])
    """

    requires = "losses"
    scale: ClassVar[str] = "mean"
    paper = "Caruana, Multitask Learning, Machine Learning 1997, https://doi.org/10.1023/A:1007379606734"

    def __init__(self) -> None:
        super().__init__()

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        return step.leave(torch.full((len(step.tasks),), 1 / len(step.tasks), dtype=torch.float64))
