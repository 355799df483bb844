"""Impartial multi-task learning, gradient balance: the same progress along every unit gradient."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.solvers import over_lengths, pseudo_solve, relative_precision, unit_rows

UNDEFINED = 1e-12  # share of the weights' own size below which their sum counts as 0


class IMTLG(Combiner):
    r"""Find the update with equal projections on all unit gradients.

    With unit gradients $u_i = g_i / \lVert g_i \rVert$, their cosines $C$ and $D = \operatorname{diag} \lVert g_i
    \rVert$:

    $$ \langle d, u_1 \rangle = \dots = \langle d, u_m \rangle, \quad d = \sum_i w_i g_i, \quad \sum_i w_i = 1
       \qquad\Longrightarrow\qquad w \propto D^{-1} C^{+} \mathbf 1 $$

    Scale: simplex (the weights add up to 1), but single weights may be negative. Invariant to row scale up to length.

    Undefined: where the rows are linearly dependent and no update has equal projections, $C^{+}$ gives the nearest in
    least squares; where the unit gradients cancel ($\mathbf 1$ is outside the range of $C$), equal progress means none:
    weights in inverse proportion to the norms, which cancel the rows. A zero gradient gets weight 0. Where the raw
    weights add up to 0 (to 1e-12 of their size) they cannot be scaled to 1: all are 0 and the step is skipped. Where
    their sum is *negative*, which takes a short gradient between longer ones, the paper's normalisation turns the
    update against all tasks; it is kept as published. `ConFIG` has the same direction with the sign that helps.

    Cost: $O(\text{tasks}^3)$ on the CPU.

    Departures: none from the paper where the rows are independent. The system is solved on unit rows with thresholds
    relative to them: the pseudo-inverse of the Gramian itself loses rows below 1e-8 of the largest.

    References:
        Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, `Towards Impartial Multi-task Learning
        <https://openreview.net/forum?id=IMPnRXEWpvr>`_, ICLR 2021, Algorithm 1 (gradient balance).

    Examples:
        >>> IMTLG()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.0767, 1.0000, 1.0000])
    """

    requires = "gramian"
    scale_invariant = True
    scale: ClassVar[str] = "simplex, weights of either sign"
    paper = "Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, https://openreview.net/forum?id=IMPnRXEWpvr"

    def __init__(self) -> None:
        super().__init__()

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        cosines, lengths = unit_rows(step.gramian.numpy())
        precision = relative_precision(step.like, len(lengths))
        alive = (lengths > 0).astype(float)
        # w ∝ D⁻¹ C⁺ 1; where 1 is outside the range of C, the unit gradients cancel and w ∝ D⁻¹ 1.
        raw, reached = pseudo_solve(cosines, alive, precision)
        weights = over_lengths(alive if reached <= precision else raw, lengths)
        total = float(weights.sum())
        if abs(total) <= UNDEFINED * float(np.abs(weights).sum()):
            self.note("the weights add up to 0 and cannot be scaled: the update is 0")
            return step.leave(torch.zeros(len(weights), dtype=torch.float64))
        return step.leave(torch.from_numpy(weights / total))
