"""Task weights that keep all losses falling at the same relative rate, from the losses before and after the step."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.adam import TaskAdam
from mtl_opt.combiners.common.arguments import finite_numbers, keep_numbers
from mtl_opt.combiners.common.losses import non_negative_losses, softmax

EPSILON = 1e-8
"""Added to every loss before its logarithm, as in the authors' code."""

NOT_SEEN = -1.0
"""Stands for the loss of a task whose last step was observed already, or that had none."""

PATIENCE = 20
"""Steps without `observe` after which the combiner says so."""


class FAMO(Combiner):
    r"""Weight the tasks so that all losses fall at the same relative rate, learning from what the last step did.

    With logits $\xi$, the smallest possible losses $b$, and $w_i$ the derivative of $f$ by $L_i$ (the constant $c$
    makes the weights add up to 1):

    $$ z = \operatorname{softmax}(\xi), \qquad f = c \sum_i z_i \log(L_i - b_i), \qquad
       w_i = c\, \frac{z_i}{L_i - b_i}, \qquad c = \Bigl(\sum_j \frac{z_j}{L_j - b_j}\Bigr)^{-1} $$

    After the step `observe` takes the losses of the same batch under the new parameters, and Adam moves the logits
    against

    $$ \delta = \Bigl(\frac{\partial z}{\partial \xi}\Bigr)^{\!\top} \Delta + \gamma\, \xi, \qquad
       \Delta_i = \log(L_i - b_i) - \log(L_i' - b_i) $$

    so that tasks which fell less than the others get more weight.

    Scale: simplex (the weights add up to 1). The softmax runs over the present tasks.

    Undefined: a loss at $b_i$ is at its minimum and has no gradient: the task gets weight 0 (unless all are there) and
    its logit stays. Steps that are not observed leave the logits as they are.

    Cost: one forward pass of the same batch per step.

    Departures: none from the paper; 1e-8 is added to every $L_i - b_i$, as in the authors' code, whose weight decay is
    1e-5 in the class and 1e-3 in its run script.

    Args:
        lr: Learning rate of the private Adam, per step.
        weight_decay: Pull of the logits towards 0, $\gamma$.
        min_losses: The smallest value each loss can take; one for all, by name or in task order.

    Raises:
        ValueError: If an argument is out of range, no losses are passed, one is below its `min_losses`, or (at `bind`)
            `min_losses` does not fit the tasks.

    References:
        Liu, Feng, Stone, Liu, `FAMO: Fast Adaptive Multitask Optimization <https://arxiv.org/abs/2306.03792>`_,
        NeurIPS 2023, Algorithms 1 and 2.

    Examples:
        >>> combiner = FAMO(lr=0.1)
        >>> combiner.weights(None, torch.tensor([4.0, 1.0]))
        tensor([0.2000, 0.8000])
        >>> combiner.observe(torch.tensor([2.0, 1.0]))  # the second task did not improve
        >>> combiner.weights(None, torch.tensor([2.0, 1.0]))
        tensor([0.2905, 0.7095])
    """

    requires = "losses"
    observes = "batch"
    scale: ClassVar[str] = "simplex"
    paper = "Liu et al., FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023, https://arxiv.org/abs/2306.03792"
    logits: Tensor  # [tasks]
    least: Tensor  # [tasks]
    before: Tensor  # [tasks], above `least`

    def __init__(
        self,
        lr: float = 0.025,
        weight_decay: float = 1e-3,
        min_losses: float | Mapping[str, float] | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        self.lr = positive("lr", lr)
        finite_numbers("min_losses", min_losses)
        self.weight_decay = positive("weight_decay", weight_decay, zero=True)
        self.min_losses = min_losses
        self.unobserved = 0  # steps since the last `observe`

    def allocate(self, num_tasks: int) -> None:
        """Start with equal logits and no step to observe."""
        keep_numbers(self, "least", "min_losses", self.min_losses, self.tasks)
        self.register_buffer("logits", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("before", torch.full((num_tasks,), NOT_SEEN, dtype=torch.float64))
        self.adam = TaskAdam(num_tasks, self.lr)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        above = non_negative_losses(self, step, self.least[step.tasks].numpy())
        self.before[step.tasks] = torch.from_numpy(above)
        self.unobserved += 1
        if self.unobserved == PATIENCE:
            what = f"`observe(losses)` was not called in {PATIENCE} steps, so that the logits stay as they are"
            self.note(f"{what}; call it after every optimizer step with the new losses of the same batch", warn=True)
        taking_part = above > 0 if (above > 0).any() else np.ones_like(above, dtype=bool)
        # w_i = c z_i / (L_i - b_i), with c so that they add up to 1.
        inverse = np.where(taking_part, softmax(self.logits[step.tasks].numpy()) / (above + EPSILON), 0.0)
        return step.leave(torch.from_numpy(inverse / inverse.sum()))

    @override
    def observe(self, losses: Tensor, *, tasks: Sequence[int] | None = None) -> None:
        """Learn from the losses of the same batch after the step; a task without a step since the last call is left.

        Args:
            losses: One per task of the step; refused when not finite or below its `min_losses`. `[tasks]`
            tasks: Their indices among the bound names; None: all of them, in order.
        """
        self.unobserved = 0
        step = self.enter(None, losses, tasks)
        after = non_negative_losses(self, step, self.least[step.tasks].numpy())
        before = self.before[step.tasks].numpy()
        self.before[step.tasks] = NOT_SEEN
        moving = before > 0  # a loss at its minimum before the step could not fall
        if not moving.any():
            return
        present = [task for task, moves in zip(step.tasks, moving, strict=True) if moves]
        gains = np.log(before[moving] + EPSILON) - np.log(after[moving] + EPSILON)
        # δ = (∂z/∂ξ)ᵀ Δ + γ ξ with the Jacobian of the softmax, diag(z) - z zᵀ.
        shares = softmax(self.logits[present].numpy())
        slope = torch.from_numpy(shares * (gains - shares @ gains)) + self.weight_decay * self.logits[present]
        self.adam.step(self.logits, slope, present)
