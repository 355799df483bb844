"""The shortest gradient in the convex hull of all task gradients."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import named
from mtl_opt.combiners.base import CheckedInput, Combiner
from mtl_opt.combiners.common.losses import needed_losses
from mtl_opt.combiners.common.solvers import cholesky_rows, min_norm_point, relative_precision, unit_rows

NORMALIZERS = ("none", "l2", "loss", "loss+")


class MGDA(Combiner):
    r"""Compute the shortest vector in the convex hull of the task gradients: a descent direction for all, or 0.

    $$ d = \sum_i w_i\, g_i, \qquad w = \operatorname*{argmin}_{w \ge 0,\ \sum_i w_i = 1}
       \Bigl\lVert \sum_i w_i\, \frac{g_i}{n_i} \Bigr\rVert, \qquad
       n_i = 1, \quad \lVert g_i \rVert, \quad L_i \quad \text{or} \quad L_i \lVert g_i \rVert $$

    for `normalize` "none", "l2", "loss" and "loss+". The minimum is found exactly by an active-set method that lowers
    the norm in every step and so ends on stationary gradients too.

    Scale: simplex (the weights add up to 1). Without normalisation small gradients win: the update is at most as long
    as the shortest one.

    Undefined: nowhere. Where the gradients are linearly dependent the minimum is unique, the weights
    need not be. A zero gradient gets all the weight: it cannot be improved upon. A solve that does not converge warns,
    and the step takes the mean.

    Cost: $O(\text{tasks}^3)$ on the CPU.

    Departures: Désidéri's method and Algorithm 2 of Sener and Koltun solve the same problem; theirs is Frank–Wolfe,
    stopped after 250 steps, here the minimum is exact. The normalisations are those of the authors' code, where the
    normalised gradients only choose the weights, which then apply to the gradients as they are; so they do here.
    The upper bound on the representation (MGDA-UB) is no combiner of parameter gradients and is left out.

    Args:
        normalize: What the gradients are divided by before the weights are chosen.

    Raises:
        ValueError: If `normalize` is unknown; if it uses losses and none are passed, or one is not positive.

    References:
        Désidéri, `Multiple-gradient descent algorithm (MGDA) for multiobjective optimization
        <https://doi.org/10.1016/j.crma.2012.03.014>`_, Comptes Rendus Mathématique 2012.
        Sener, Koltun, `Multi-Task Learning as Multi-Objective Optimization <https://arxiv.org/abs/1810.04650>`_,
        NeurIPS 2018, equation 3.

    Examples:
        >>> MGDA().weights(torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([0.6000, 0.4000])
    """

    requires = "gramian"
    scale: ClassVar[str] = "simplex"
    paper = "Sener, Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018, https://arxiv.org/abs/1810.04650"

    def __init__(self, normalize: Literal["none", "l2", "loss", "loss+"] = "none") -> None:
        super().__init__()
        self.normalize = named("normalize", normalize, NORMALIZERS)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        num_tasks = len(step.tasks)
        cosines, lengths = unit_rows(step.gramian.numpy())
        unit = cholesky_rows(cosines, relative_precision(step.like, num_tasks))
        # Equation 3 on the normalised gradients; the weights then apply to the gradients as they are.
        found = min_norm_point(unit * self._normalized(lengths, step)[:, None])
        if found is None:
            return self.mean_instead(step, "the non-negative least squares did not converge", warn=True)
        return step.leave(torch.from_numpy(found))

    def _normalized(self, lengths: np.ndarray, step: CheckedInput) -> np.ndarray:  # [tasks] -> [tasks]
        """Divide the length of every gradient by its normalizer."""
        if self.normalize == "l2":
            return (lengths > 0).astype(float)
        if self.normalize == "none":
            return lengths
        losses = self._positive_losses(step)
        return lengths / losses if self.normalize == "loss" else (lengths > 0) / losses

    def _positive_losses(self, step: CheckedInput) -> np.ndarray:  # [tasks]
        """Return the losses; raise for one that is not positive."""
        losses = needed_losses(self, step)
        for task, loss in zip(step.tasks, losses.tolist(), strict=True):
            if loss <= 0 and self.tasks:
                raise ValueError(
                    f"The loss of task `{self.tasks[task]}` must be positive for MGDA with "
                    f"normalize={self.normalize!r}, got {loss}."
                )
        return losses
