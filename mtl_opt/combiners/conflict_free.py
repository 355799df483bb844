"""ConFIG: the direction with equal cosines to all task gradients."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.arguments import check_preference, keep_preference
from mtl_opt.combiners.common.solvers import over_lengths, pseudo_solve, relative_precision, unit_rows


class ConFIG(Combiner):
    r"""Move along the direction whose cosines to all gradients are equal, as far as the gradients reach along it.

    With the unit gradients as rows of $U$, their cosines $C = U U^\top$ and the preference $p$ (all ones):

    $$ \hat d = \frac{U^{+} p}{\lVert U^{+} p \rVert}, \qquad d = \Bigl(\sum_i \langle g_i, \hat d \rangle\Bigr) \hat d,
       \qquad U^{+} p = U^\top C^{+} p $$

    Scale: sum (for equal gradients $d$ is their sum). Free of conflict where the unit gradients are linearly
    independent.

    Undefined: where the unit gradients are dependent (as with more tasks than parameters) the cosines are equal only in
    least squares and some task may lose; where the preference is outside the range of $C$ there is no direction at all
    and the weights are 0. A zero gradient takes no part.

    Cost: $O(\text{tasks}^3)$ on the CPU.

    Departures: none from the paper. The authors' code solves a least-squares problem on the rows that assumes full
    rank on a GPU; here the Moore–Penrose inverse is taken on the cosines, with thresholds relative to unit rows.
    Momentum variants (M-ConFIG) are left to the optimizer.

    Args:
        preference: Ratio of the cosines wanted, by task name or in task order, positive. Default: all equal.

    Raises:
        ValueError: If a preference is not positive and finite, or (at `bind`) does not fit the tasks.

    References:
        Liu, Chu, Thuerey, `ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks
        <https://arxiv.org/abs/2408.11104>`_, ICLR 2025, equation 2.

    Examples:
        >>> ConFIG()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.1588, 2.0706, 2.0706])
    """

    requires = "gramian"
    scale_invariant = True
    scale: ClassVar[str] = "sum"
    paper = "Liu et al., ConFIG: Towards Conflict-free Training, ICLR 2025, https://arxiv.org/abs/2408.11104"

    def __init__(self, preference: Mapping[str, float] | Sequence[float] | None = None) -> None:
        super().__init__()
        check_preference(preference)
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
        cosines, lengths = unit_rows(step.gramian.numpy())
        precision = relative_precision(step.like, len(lengths))
        wanted = np.where(lengths > 0, self.get_buffer("preferred")[step.tasks].numpy(), 0.0)
        # Equation 2: the direction is that of U⁺ p = Uᵀ C⁺ p, and `along` is C⁺ p.
        along, reached = pseudo_solve(cosines, wanted, precision)
        if reached <= precision:
            self.note("no direction has the preferred cosines to all gradients: the update is 0")
            return step.leave(torch.zeros(len(lengths), dtype=torch.float64))
        # Σ⟨g_i, d̂⟩ d̂ with d̂ = U⁺p / ‖U⁺p‖, where ‖U⁺p‖² = alongᵀ C along.
        squared = float(along @ cosines @ along)
        total = float(lengths @ (cosines @ along)) / squared
        return step.leave(torch.from_numpy(over_lengths(along, lengths) * total))
