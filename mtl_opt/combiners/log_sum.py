"""The sum of the logarithms of the losses."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.losses import SMALLEST_LOSS, non_negative_losses


class LogSum(Combiner):
    r"""Descend the sum of the logarithms of the losses, which does not depend on the unit of any loss.

    $$ f = \sum_i \log L_i, \qquad w_i = \frac{1}{L_i} $$

    Scale: inverse loss (a task at loss 1 counts as in `Sum`). The update stays the same when a loss is multiplied by a
    constant.

    Undefined: a loss of 0 is at its minimum and has no gradient: the task gets weight 0.

    Cost: none.

    Departures: none; a positive loss counts as at least 1e-30.

    Raises:
        ValueError: If no losses are passed, or one is negative.

    References:
        Navon et al., `Multi-Task Learning as a Bargaining Game <https://arxiv.org/abs/2202.01017>`_, ICML 2022,
        section 6, the scale-invariant baseline (SI).

    Examples:
        >>> LogSum().weights(None, torch.tensor([4.0, 0.5]))
        tensor([0.2500, 2.0000])
    """

    requires = "losses"
    scale: ClassVar[str] = "inverse loss"
    paper = "Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022, https://arxiv.org/abs/2202.01017"

    def __init__(self) -> None:
        super().__init__()

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        values = non_negative_losses(self, step)
        # w_i = ∂f/∂L_i = 1 / L_i
        weights = np.where(values > 0, 1 / np.maximum(values, SMALLEST_LOSS), 0.0)
        return step.leave(torch.from_numpy(weights))
