"""Projection of the mean gradient onto the directions without conflict."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.names import checked_preference, task_preference
from mtl_opt.combiners.solvers import factor, nonnegative_solve, over_lengths, precision_of, unit_rows


class DualProj(Combiner):
    r"""Take the direction closest to the mean gradient that conflicts with no task.

    With the preference $u$ (all $1/m$ for $m$ present tasks) and $G = J J^\top$:

    $$ d = \operatorname*{argmin}_{y:\ J y \ge 0} \lVert y - J^\top u \rVert = J^\top v, \qquad
       v = \operatorname*{argmin}_{v \ge u} v^\top G v $$

    One non-negative least-squares problem on the unit gradients, solved exactly.

    Scale: mean (it equals `Mean` where the mean conflicts with no task). Defined for every input; where the gradients
    are linearly dependent the update is unique, the weights need not be. No gradient conflicts with the update, up to
    the rounding of the Gramian. A zero gradient conflicts with nobody. A solve that does not converge warns, and the
    step takes the preference as weights. Cost: $O(\text{tasks}^3)$ on the CPU.

    Departures: the paper projects the gradient of the current task against those of earlier tasks, with a margin
    ("memory strength"); for tasks trained together it is the mean that is projected, without a margin, as in TorchJD.
    Its code adds 1e-3 to the diagonal of the Gramian; nothing is added here.

    Args:
        preference: Weights of the gradient that is projected, by task name or in task order, positive; not
            normalised. Default: 1 over the number of present tasks.

    Raises:
        ValueError: If a preference is not positive and finite, or (at `bind`) does not fit the tasks.

    References:
        Lopez-Paz, Ranzato, `Gradient Episodic Memory for Continual Learning <https://arxiv.org/abs/1706.08840>`_,
        NeurIPS 2017, equation 11.

    Examples:
        >>> DualProj()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.5556, 1.1111, 1.1111])
    """

    requires = "gramian"
    scale: ClassVar[str] = "mean"
    paper = "Lopez-Paz, Ranzato, Gradient Episodic Memory, NeurIPS 2017, https://arxiv.org/abs/1706.08840"

    def __init__(self, preference: Mapping[str, float] | Sequence[float] | None = None) -> None:
        super().__init__()
        checked_preference(preference)
        self.preference = preference

    @override
    def allocate(self, num_tasks: int) -> None:
        """Resolve the names to one preference per task; without any there is nothing to keep.

        Args:
            num_tasks: Number of bound tasks.
        """
        assert self.tasks is not None
        if self.preference is not None:
            self.register_buffer("preferred", torch.from_numpy(task_preference(self.preference, 1.0, self.tasks)))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        num_tasks = len(step.tasks)
        preferred = np.full(num_tasks, 1 / num_tasks)
        if self.preference is not None:
            preferred = self.get_buffer("preferred")[step.tasks].numpy()
        inner = step.gramian.numpy()
        if (inner @ preferred >= 0).all():
            return step.leave(torch.from_numpy(preferred))
        cosines, lengths = unit_rows(inner)
        rows = factor(cosines, precision_of(step.like, num_tasks))
        added = nonnegative_solve(np.ascontiguousarray(rows.T), -(preferred * lengths) @ rows)
        if added is None:
            return step.leave(torch.from_numpy(preferred))
        return step.leave(torch.from_numpy(preferred + over_lengths(added, lengths)))
