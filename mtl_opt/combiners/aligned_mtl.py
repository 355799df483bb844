"""Independent component alignment: all principal components of the gradients at one scale."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import named
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.solvers import cholesky_rows, relative_precision, unit_rows

SCALE_MODES = ("min", "median", "rmse")
ILL_SCALED = 1e-7  # below this ratio of eigenvalues the usual eigensolver loses the smallest ones


class AlignedMTL(Combiner):
    r"""Bring the gradients' principal components to a common scale, then take the mean.

    With the eigenvalues $\lambda_1 \ge \dots \ge \lambda_r > 0$ of $G = V \Lambda V^\top$:

    $$ w = \frac{\sqrt\sigma}{m}\, V \Lambda^{-1/2} V^\top \mathbf 1, \qquad
       \sigma = \lambda_r \text{ (min)}, \quad \text{the lower median of the } \lambda_i \text{ (median)}, \quad
       \frac1r \sum_i \lambda_i \text{ (rmse)} $$

    so that the aligned gradients $\sqrt\sigma\, V \Lambda^{-1/2} V^\top J$ are orthogonal and equally long.

    Scale: mean (it equals `Mean` for orthogonal gradients of one length).

    Undefined: linearly dependent rows: components that are 0 are left out, $r$ is the rank; when gradients turn
    dependent the smallest eigenvalue, and with "min" the update, jumps. All gradients zero, or a decomposition that
    does not converge: the mean.

    Cost: $O(\text{tasks}^3)$ on the CPU, 1 ms for 40 tasks.

    Departures: the paper sums the aligned gradients with preference weights; they are $1/m$ here, the authors' code
    takes 1. Their code decides the rank on the eigenvalues of the Gramian and loses all gradients below 1e-8 of the
    largest; here the rank is that of the unit rows, and where the norms are far apart the eigenvalues are found by
    LAPACK's Jacobi method on a pivoted Cholesky factor, accurate whatever the norms (for independent gradients).

    Args:
        scale_mode: The common scale: "min" (the paper's choice), "median" or "rmse".

    Raises:
        ValueError: If `scale_mode` is unknown.

    References:
        Senushkin, Patakin, Kuznetsov, Konushin, `Independent Component Alignment for Multi-Task Learning
        <https://arxiv.org/abs/2305.19000>`_, CVPR 2023, Algorithm 1.
        Demmel, Veselić, `Jacobi's Method is More Accurate than QR <https://doi.org/10.1137/0613074>`_, 1992.

    Examples:
        >>> AlignedMTL()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.2133, 0.9673, 0.9673])
    """

    requires = "gramian"
    scale: ClassVar[str] = "mean"
    paper = "Senushkin et al., Independent Component Alignment, CVPR 2023, https://arxiv.org/abs/2305.19000"

    def __init__(self, scale_mode: Literal["min", "median", "rmse"] = "min") -> None:
        super().__init__()
        self.scale_mode = named("scale_mode", scale_mode, SCALE_MODES)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        num_tasks = len(step.tasks)
        inner = step.gramian.numpy()
        cosines, lengths = unit_rows(inner)
        unit = cholesky_rows(cosines, relative_precision(step.like, num_tasks))
        rank = unit.shape[1]
        if rank == 0:
            return self.mean_instead(step, "all gradients are zero")
        # Algorithm 1: w = √σ / m · V Λ^(-1/2) Vᵀ 1, with the eigenvalues Λ and eigenvectors V of G.
        squares, vectors = np.linalg.eigh(inner)
        if rank == num_tasks and squares[0] < ILL_SCALED * squares[-1]:
            found = graded_svd(unit * lengths[:, None])
            if found is None:
                return self.mean_instead(step, "the singular value decomposition did not converge", warn=True)
            values, polar = found
            # With the rows D L (lengths D, unit rows L) and their polar form G^(1/2) Q: G^(-1/2) 1 = D⁻¹ L⁻ᵀ Qᵀ 1.
            root = np.linalg.solve(unit.T, polar.sum(0)) / lengths
        else:
            kept = (squares > num_tasks * np.finfo(np.float64).eps * squares[-1]) & (
                np.arange(num_tasks) >= num_tasks - rank
            )
            values, vectors = np.sqrt(squares[kept][::-1]), vectors[:, kept][:, ::-1]
            root = vectors @ (vectors.sum(0) / values)
        return step.leave(torch.from_numpy(root * (self._common(values) / num_tasks)))

    def _common(self, values: np.ndarray) -> float:
        """Return √σ, the common scale, from the singular values, largest first."""
        if self.scale_mode == "min":
            return float(values[-1])
        if self.scale_mode == "median":
            return float(values[len(values) // 2])
        return float(np.sqrt(np.mean(values**2)))


def graded_svd(
    rows: np.ndarray,  # [tasks, tasks]
) -> tuple[np.ndarray, np.ndarray] | None:  # [tasks], [tasks, tasks]
    """Decompose rows of very different lengths by one-sided Jacobi rotations, every singular value precisely."""
    # Every option 0: full accuracy for columns of any lengths, both factors, nothing rounded to 0 or perturbed.
    values, left, right, work, _, failed = lapack.dgejsv(rows.T, joba=0, jobu=0, jobv=0, jobr=0, jobt=0, jobp=0)
    return None if failed else (values * (work[0] / work[1]), right @ left.T)
