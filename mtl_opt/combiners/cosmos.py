"""A weighted sum of the losses that also turns their vector towards a preference."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.arguments import check_preference, keep_preference
from mtl_opt.combiners.common.losses import SMALLEST_LOSS, needed_losses, preference_shares


class COSMOS(Combiner):
    r"""Descend a weighted sum of the losses, with a reward for a vector of losses that points along the preference.

    With preference $r$ (adding up to 1), and $w_i$ the derivative of $f$ by $L_i$:

    $$ f = r^\top L - \lambda \cos(r, L), \qquad
       w_i = r_i - \frac{\lambda}{\lVert L \rVert}
             \Bigl(\frac{r_i}{\lVert r \rVert} - \cos(r, L)\, \frac{L_i}{\lVert L \rVert}\Bigr) $$

    Scale: simplex where the losses point along the preference; elsewhere the weight of a task whose loss is too small
    can be negative. The preference is scaled to add up to 1 over the present tasks.

    Undefined: where all losses are 0 the cosine is undefined and the weights are $r$.

    Cost: none.

    Departures: the paper draws a new preference in every step and feeds it to the model, so that one model covers
    the Pareto front; here it is fixed, and the model knows nothing of it.

    Args:
        lambda_: Strength of the reward, in units of loss; 0 is a weighted sum.
        preference: Wanted proportion of the losses, by name or in task order; positive. Default: all alike.

    Raises:
        ValueError: If an argument is out of range, no losses are passed, or (at `bind`) a task has no preference.

    References:
        Ruchte, Grabocka, `Scalable Pareto Front Approximation for Deep Multi-Objective Learning
        <https://arxiv.org/abs/2103.13392>`_, ICDM 2021, equation 5.

    Examples:
        >>> COSMOS().weights(None, torch.tensor([2.0, 1.0]))
        tensor([0.5632, 0.3735])
    """

    requires = "losses"
    scale: ClassVar[str] = "simplex along the preference"
    paper = "Ruchte et al., Scalable Pareto Front Approximation, ICDM 2021, https://arxiv.org/abs/2103.13392"
    preferred: Tensor  # [tasks]

    def __init__(self, lambda_: float = 1.0, preference: Mapping[str, float] | Sequence[float] | None = None) -> None:
        super().__init__()
        check_preference(preference)
        self.lambda_ = positive("lambda_", lambda_, zero=True)
        self.preference = preference

    @override
    def allocate(self, num_tasks: int) -> None:
        """Resolve the names to one preference per task."""
        keep_preference(self, self.preference, self.tasks)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        values = needed_losses(self, step)
        preference = preference_shares(self.preferred[step.tasks].numpy())
        largest = np.abs(values).max()
        if largest < SMALLEST_LOSS:
            return step.leave(torch.from_numpy(preference))
        length = np.linalg.norm(values / largest)  # of numbers up to 1: no square overflows
        unit, wanted = values / largest / length, preference / np.linalg.norm(preference)
        # Equation 5, differentiated: w = r - λ / ‖L‖ (r / ‖r‖ - cos(r, L) L / ‖L‖).
        turning = (wanted - (wanted @ unit) * unit) / largest / length
        return step.leave(torch.from_numpy(preference - self.lambda_ * turning))
