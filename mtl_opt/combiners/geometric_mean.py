"""The geometric mean of the losses."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.losses import SMALLEST_LOSS, non_negative_losses

LARGEST_EXPONENT = 69.0  # e^69 is 1e30


class GeometricMean(Combiner):
    r"""Descend the geometric mean of the losses, in which a relative gain counts the same for every task.

    With $m$ tasks, and $w_i$ the derivative of $f$ by $L_i$, computed in logarithms so that no product overflows:

    $$ f = \Bigl(\prod_j L_j\Bigr)^{1/m}, \qquad
       w_i = \frac{f}{m\, L_i} = \exp\Bigl(\operatorname{mean}_j \log L_j - \log L_i - \log m\Bigr) $$

    Scale: mean (it equals `Mean` where all losses are equal). The direction is that of `LogSum`. Weights are cut at
    1e30.

    Undefined: a loss of 0 is at its minimum and has no gradient: the task gets weight 0 and the mean is that of the
    others (the formula would stop the training of all).

    Cost: none.

    Departures: none from the paper. The usual code multiplies the losses, which underflows with many tasks.

    Raises:
        ValueError: If no losses are passed, or one is negative.

    References:
        Chennupati, Sistu, Yogamani, Rawashdeh, `MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
        Strategy for Multi-Task Learning <https://arxiv.org/abs/1904.08492>`_, CVPR Workshops 2019, the geometric loss
        strategy (GLS).

    Examples:
        >>> GeometricMean().weights(None, torch.tensor([4.0, 1.0]))
        tensor([0.2500, 1.0000])
    """

    requires = "losses"
    scale: ClassVar[str] = "mean"
    paper = "Chennupati et al., MultiNet++, CVPR Workshops 2019, https://arxiv.org/abs/1904.08492"

    def __init__(self) -> None:
        super().__init__()

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        values = non_negative_losses(self, step)
        open_tasks = values > 0
        weights = np.zeros_like(values)
        if open_tasks.any():
            logs = np.log(np.maximum(values[open_tasks], SMALLEST_LOSS))
            exponents = logs.mean() - logs - np.log(logs.size)
            weights[open_tasks] = np.exp(np.minimum(exponents, LARGEST_EXPONENT))
        return step.leave(torch.from_numpy(weights))
