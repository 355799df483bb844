"""Distance along a preferred direction of losses, plus a penalty on the distance from it."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.arguments import check_preference, finite_numbers, keep_numbers, keep_preference
from mtl_opt.combiners.common.losses import needed_losses, preference_shares

ON_THE_LINE = 1e-12
"""Distances from the preferred direction below this part of the losses are rounding."""


class PBI(Combiner):
    r"""Descend along a preferred direction of losses, with a penalty on the distance from it.

    With preference $r$ scaled to norm 1, ideal losses $z$, and $w$ the gradient of $f$ by $L$:

    $$ f = d_1 + \theta d_2, \qquad d_1 = r^\top (L - z), \qquad d_2 = \lVert (L - z) - d_1 r \rVert, \qquad
       w = r + \theta\, \frac{(L - z) - d_1 r}{d_2} $$

    Scale: norm (on the preferred direction the weights have norm 1, elsewhere $\sqrt{1 + \theta^2}$); off the direction
    the weight of a task whose loss is too small is negative.

    Undefined: on the direction $d_2$ has a kink and its subgradient 0 is taken.

    Cost: none.

    Departures: the paper minimises $f$ by evolution, not by gradients; the default $\theta$ is the paper's. A large
    $\theta$ makes the training jump from one side of the direction to the other.

    Args:
        theta: Weight of the distance from the direction.
        preference: Wanted proportion of the losses above `reference`, by name or in task order; positive. Default:
            all alike.
        reference: Ideal losses, one for all, by name or in task order. Default: 0.

    Raises:
        ValueError: If an argument is out of range, no losses are passed, or (at `bind`) a task has no preference.

    References:
        Zhang, Li, `MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition
        <https://ieeexplore.ieee.org/document/4358754>`_, IEEE Transactions on Evolutionary Computation 2007,
        section II.C.

    Examples:
        >>> PBI(theta=2.0).weights(None, torch.tensor([2.0, 1.0]))
        tensor([ 2.1213, -0.7071])
    """

    requires = "losses"
    scale: ClassVar[str] = "norm"
    paper = "Zhang et al., MOEA/D, IEEE TEVC 2007, https://ieeexplore.ieee.org/document/4358754"
    preferred: Tensor  # [tasks]
    ideal: Tensor  # [tasks]

    def __init__(
        self,
        theta: float = 5.0,
        preference: Mapping[str, float] | Sequence[float] | None = None,
        reference: float | Mapping[str, float] | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        check_preference(preference)
        finite_numbers("reference", reference)
        self.theta = positive("theta", theta, zero=True)
        self.preference = preference
        self.reference = reference

    @override
    def allocate(self, num_tasks: int) -> None:
        """Resolve the names to one preference and one ideal loss per task."""
        keep_preference(self, self.preference, self.tasks)
        keep_numbers(self, "ideal", "reference", self.reference, self.tasks)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        values = needed_losses(self, step) - self.ideal[step.tasks].numpy()
        preference = preference_shares(self.preferred[step.tasks].numpy())
        direction = preference / np.linalg.norm(preference)
        largest = np.abs(values).max()
        values = values / largest if largest > 0 else values  # the gradient does not depend on the unit of the losses
        # (L - z) - d₁ r, whose norm d₂ has the gradient off / d₂.
        off = values - (values @ direction) * direction
        distance = np.linalg.norm(off)
        pull = off / distance if distance > ON_THE_LINE else np.zeros_like(off)
        return step.leave(torch.from_numpy(direction + self.theta * pull))
