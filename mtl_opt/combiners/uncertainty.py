"""Homoscedastic uncertainty as task weights."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import named, positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.adam import TaskAdam
from mtl_opt.combiners.common.losses import needed_losses

FORMS = ("classification", "regression", "liebel_koerner")


class UncertaintyWeighting(Combiner):
    r"""Weight every task by the precision of its likelihood, with the noise level learnt beside the model.

    With $s_i = \log \sigma_i^2$, the weights are the derivatives by $L_i$ of

    $$ \text{classification: } e^{-s_i} L_i + \tfrac12 s_i \qquad
       \text{regression: } \tfrac12 e^{-s_i} L_i + \tfrac12 s_i \qquad
       \text{Liebel–Körner: } \tfrac12 e^{-s_i} L_i + \log(1 + e^{s_i}) $$

    and every $s_i$ follows its own closed-form gradient by Adam. At rest $e^{s_i}$ is $2 L_i$ (classification) or
    $L_i$ (regression): a task with a large loss gets a small weight.

    Scale: as learnt; it starts at 1 (classification) or 1/2.

    Undefined: a loss that stays at 0 or below has no rest point: its weight grows without bound.

    Cost: none.

    Departures: the paper learns $s_i$ in the model's optimizer; here it has an Adam of its own, so that weight decay
    cannot pull it to 0 and it cannot be forgotten there. Liebel and Körner learn $\sigma_i$; its logarithm is used
    here, which has the same rest points and cannot turn negative.

    Args:
        form: Which of the three losses; `classification` suits cross-entropy.
        lr: Learning rate of the private Adam, per step.

    Raises:
        ValueError: If `form` is unknown, `lr` is not positive, or no losses are passed.

    References:
        Kendall, Gal, Cipolla, `Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
        Semantics <https://arxiv.org/abs/1705.07115>`_, CVPR 2018, equations 7 and 10.
        Liebel, Körner, `Auxiliary Tasks in Multi-task Learning <https://arxiv.org/abs/1805.06334>`_, 2018, equation 4.

    Examples:
        >>> combiner = UncertaintyWeighting(lr=0.1)
        >>> combiner.weights(None, torch.tensor([4.0, 0.1]))
        tensor([1., 1.])
        >>> combiner.weights(None, torch.tensor([4.0, 0.1]))
        tensor([0.9048, 1.1052])
    """

    requires = "losses"
    scale: ClassVar[str] = "learnt"
    paper = "Kendall et al., Multi-Task Learning Using Uncertainty, CVPR 2018, https://arxiv.org/abs/1705.07115"
    log_variance: Tensor  # [tasks]

    def __init__(
        self, form: Literal["classification", "regression", "liebel_koerner"] = "classification", lr: float = 0.025
    ) -> None:
        super().__init__()
        self.form = named("form", form, FORMS)
        self.lr = positive("lr", lr)

    def allocate(self, num_tasks: int) -> None:
        """Start every noise level at 1."""
        self.register_buffer("log_variance", torch.zeros(num_tasks, dtype=torch.float64))
        self.adam = TaskAdam(num_tasks, self.lr)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        values, s = needed_losses(self, step), self.log_variance.numpy()[step.tasks]
        weights = np.exp(-s) if self.form == "classification" else 0.5 * np.exp(-s)
        # ∂/∂s_i: the slope of the regulariser, ½ or that of log(1 + e^s), minus w_i L_i.
        regulariser = expit(s) if self.form == "liebel_koerner" else 0.5
        self.adam.step(self.log_variance, torch.from_numpy(regulariser - weights * values), step.tasks)
        return step.leave(torch.from_numpy(weights))
