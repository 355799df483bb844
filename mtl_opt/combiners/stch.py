"""A smooth maximum of the preferred losses."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.arguments import check_preference, finite_numbers, keep_numbers, keep_preference
from mtl_opt.combiners.common.losses import needed_losses, preference_shares, softmax


class SmoothTchebycheff(Combiner):
    r"""Descend a smooth maximum of the preferred losses: the worst task gets most of the step.

    With preference $\lambda$ (adding up to 1), ideal losses $z$, and $w_i$ the derivative of $f$ by $L_i$:

    $$ f = \mu \log \sum_j \exp\Bigl(\frac{\lambda_j (L_j - z_j)}{\mu}\Bigr), \qquad
       w_i = \lambda_i \operatorname{softmax}_i\Bigl(\frac{\lambda (L - z)}{\mu}\Bigr) $$

    A large $\mu$ weights the tasks by the preference alone, a small one leaves only the largest
    $\lambda_i (L_i - z_i)$. Unlike a weighted sum it reaches every point of a Pareto front, convex or not.

    Scale: simplex times preference (with equal preferences the weights add up to 1 / tasks). The preference is scaled
    to add up to 1 over the present tasks.

    Undefined: nowhere; losses may be negative.

    Cost: none.

    Departures: none from the paper's definition. The authors' code for multi-task learning applies it to
    $\log(L_i / L_i^{nadir})$ with a warm-up of four epochs on the sum of the logarithms, and multiplies by the
    number of tasks.

    Args:
        mu: Smoothing, in units of preferred loss.
        preference: Importance of each task, by name or in task order; positive. Default: all alike.
        reference: Ideal losses, one for all, by name or in task order. Default: 0.

    Raises:
        ValueError: If an argument is out of range, no losses are passed, or (at `bind`) a task has no preference.

    References:
        Lin, Zhang, Yang, Liu, Wang, Zhang, `Smooth Tchebycheff Scalarization for Multi-Objective Optimization
        <https://arxiv.org/abs/2402.19078>`_, ICML 2024, section 3.

    Examples:
        >>> SmoothTchebycheff(mu=0.5).weights(None, torch.tensor([2.0, 1.0]))
        tensor([0.3655, 0.1345])
    """

    requires = "losses"
    scale: ClassVar[str] = "simplex times preference"
    paper = "Lin et al., Smooth Tchebycheff Scalarization, ICML 2024, https://arxiv.org/abs/2402.19078"
    preferred: Tensor  # [tasks]
    ideal: Tensor  # [tasks]

    def __init__(
        self,
        mu: float = 1.0,
        preference: Mapping[str, float] | Sequence[float] | None = None,
        reference: float | Mapping[str, float] | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        self.mu = positive("mu", mu)
        check_preference(preference)
        finite_numbers("reference", reference)
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
        # w_i = ∂f/∂L_i = λ_i softmax_i(λ (L - z) / μ)
        return step.leave(torch.from_numpy(preference * softmax(preference * values, self.mu)))
