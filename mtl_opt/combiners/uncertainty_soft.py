"""Uncertainty weighting with the noise levels solved for, and a softmax over their inverses."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.losses import SMALLEST_LOSS, non_negative_losses, softmax


class SoftOptimalUncertainty(Combiner):
    r"""Weight every task by a softmax over the inverse losses, at which uncertainty weighting would come to rest.

    $$ w = \operatorname{softmax}\Bigl(\frac{1}{T\, L_i}\Bigr) $$

    with the losses taken as constants. Uncertainty weighting learns a noise level per task by gradient steps; solved
    for, it is the loss itself, and the softmax tempers the inverse so that a small loss does not take all.

    Scale: simplex (the weights add up to 1). The temperature is in units of inverse loss and has to be tuned.

    Undefined: a loss of 0 is at its minimum and has no gradient: the task gets weight 0, unless all are 0.

    Cost: none.

    Departures: the paper tunes the temperature per data set; the default here is 1. A positive loss counts as at
    least 1e-30.

    Args:
        temperature: Divides the inverse losses; a large one weights all tasks alike.

    Raises:
        ValueError: If `temperature` is not positive, no losses are passed, or one is negative.

    References:
        Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott, Köhler, `Analytical Uncertainty-Based Loss Weighting in
        Multi-Task Learning <https://arxiv.org/abs/2408.07985>`_, GCPR 2024, the section on UW-SO
        (number not verified).

    Examples:
        >>> SoftOptimalUncertainty().weights(None, torch.tensor([1.0, 0.5]))
        tensor([0.2689, 0.7311])
    """

    requires = "losses"
    scale: ClassVar[str] = "simplex"
    paper = (
        "Kirchdorfer et al., Analytical Uncertainty-Based Loss Weighting, GCPR 2024, https://arxiv.org/abs/2408.07985"
    )

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        values = non_negative_losses(self, step)
        taking_part = values > 0 if (values > 0).any() else np.ones_like(values, dtype=bool)
        weights = np.zeros_like(values)
        weights[taking_part] = softmax(1 / np.maximum(values[taking_part], SMALLEST_LOSS), self.temperature)
        return step.leave(torch.from_numpy(weights))
