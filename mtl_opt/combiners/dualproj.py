"""Projection of the mean gradient onto the directions without conflict."""

from typing import ClassVar

import numpy as np
from typing_extensions import override

from mtl_opt.combiners.common.cone import ConeProjection
from mtl_opt.combiners.common.solvers import cone_rows, nonnegative_solve


class DualProj(ConeProjection):
    r"""Project the mean gradient onto the directions that conflict with no task.

    With the preference $u$ (all $1/m$ for $m$ present tasks) and $G = J J^\top$:

    $$ d = \operatorname*{argmin}_{y:\ J y \ge 0} \lVert y - J^\top u \rVert = J^\top v, \qquad
       v = \operatorname*{argmin}_{v \ge u} v^\top G v $$

    One non-negative least-squares problem on the unit gradients, solved exactly.

    Scale: mean (it equals `Mean` where the mean conflicts with no task). No gradient conflicts with the update, up to
    the rounding of the Gramian.

    Undefined: nowhere. Where the gradients are linearly dependent the update is unique, the weights
    need not be. A zero gradient conflicts with nobody. A solve that does not converge warns, and the step takes the
    preference as weights.

    Cost: $O(\text{tasks}^3)$ on the CPU.

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
        >>> import torch
        >>> DualProj()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.5556, 1.1111, 1.1111])
    """

    requires = "gramian"
    scale: ClassVar[str] = "mean"
    paper = "Lopez-Paz, Ranzato, Gradient Episodic Memory, NeurIPS 2017, https://arxiv.org/abs/1706.08840"

    @override
    def added(self, cosines: np.ndarray, preferred: np.ndarray, precision: float) -> np.ndarray | None:
        if (cosines @ preferred >= 0).all():
            return np.zeros_like(preferred)
        # With v = u + a: min_{a ≥ 0} ‖Jᵀu + Jᵀa‖, a non-negative least-squares problem in the coordinates of the rows.
        rows = cone_rows(cosines, precision)
        return nonnegative_solve(np.ascontiguousarray(rows.T), -preferred @ rows)
