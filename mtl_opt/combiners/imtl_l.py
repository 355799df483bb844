"""Task weights learnt so that all weighted losses become equal."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.adam import TaskAdam
from mtl_opt.combiners.common.losses import non_negative_losses


class IMTLL(Combiner):
    r"""Learn a scale per task that brings all losses to the same size.

    Every $s_i$ descends, by Adam, the function whose derivatives by $L_i$ are the weights:

    $$ f = \sum_i \bigl(e^{s_i} L_i - s_i\bigr), \qquad w_i = e^{s_i}, \qquad
       \frac{\partial f}{\partial s_i} = e^{s_i} L_i - 1 $$

    At rest $w_i = 1 / L_i$: it is `LogSum` with inertia, and `UncertaintyWeighting` up to a factor. The step uses
    the scales from before their update.

    Scale: as learnt; it starts at 1.

    Undefined: a loss of 0 is at its minimum, has no gradient and no rest point: its scale stays.

    Cost: $O(\text{tasks})$.

    Departures: the paper learns the scales in the model's optimizer; here they have an Adam of their own, so that
    weight decay cannot pull them to 0 and they cannot be forgotten there. The paper's base is any $a > 1$; here it
    is $e$.

    Args:
        lr: Learning rate of the private Adam, per step.

    Raises:
        ValueError: If `lr` is not positive, no losses are passed, or one is negative.

    References:
        Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, `Towards Impartial Multi-task Learning
        <https://openreview.net/forum?id=IMPnRXEWpvr>`_, ICLR 2021, section 3.2.

    Examples:
        >>> combiner = IMTLL(lr=0.1)
        >>> combiner.weights(None, torch.tensor([4.0, 0.1]))
        tensor([1., 1.])
        >>> combiner.weights(None, torch.tensor([4.0, 0.1]))
        tensor([0.9048, 1.1052])
    """

    requires = "losses"
    scale: ClassVar[str] = "learnt"
    paper = "Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, https://openreview.net/forum?id=IMPnRXEWpvr"
    log_scale: Tensor  # [tasks]

    def __init__(self, lr: float = 0.025) -> None:
        super().__init__()
        self.lr = positive("lr", lr)

    def allocate(self, num_tasks: int) -> None:
        """Start every scale at 1."""
        self.register_buffer("log_scale", torch.zeros(num_tasks, dtype=torch.float64))
        self.adam = TaskAdam(num_tasks, self.lr)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        values = non_negative_losses(self, step)
        weights = np.exp(self.log_scale.numpy()[step.tasks])
        learning = values > 0
        if learning.any():
            tasks_learning = [task for task, learns in zip(step.tasks, learning, strict=True) if learns]
            # ∂f/∂s_i = e^{s_i} L_i - 1
            self.adam.step(self.log_scale, torch.from_numpy((weights * values - 1)[learning]), tasks_learning)
        return step.leave(torch.from_numpy(weights))
