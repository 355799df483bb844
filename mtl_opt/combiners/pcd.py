"""Priority-constrained descent: follow one task, with progress guaranteed to the others."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import fraction
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.arguments import TaskKey, task_indices
from mtl_opt.combiners.common.solvers import (
    cholesky_rows,
    nonnegative_solve,
    over_lengths,
    relative_precision,
    unit_rows,
)


class PCD(Combiner):
    r"""Stay as near to the primary task's gradient as guaranteed progress of every other task allows.

    With normalised gradients $\tilde g_i = g_i / \sqrt{\hat v_i}$, $\hat v_i$ the bias-corrected moving average of
    $\lVert g_i \rVert^2$ with decay $\beta$, and the primary task $p$:

    $$ \tilde d = \arg\min_d \tfrac12 \lVert d - \tilde g_p \rVert^2
       \quad \text{subject to} \quad \langle \tilde g_j, d \rangle \ge \tau \lVert \tilde g_j \rVert^2
       \quad (j \ne p), \qquad d = \lVert g_p \rVert \frac{\tilde d}{\lVert \tilde d \rVert} $$

    Scale: the norm of the primary gradient.

    Undefined: where no direction meets all constraints (two opposite secondary gradients) they are dropped and $d =
    g_p$. A zero primary gradient or $\tilde d = 0$: all weights are 0. The primary task absent, or a solver that gives
    up (with a `RuntimeWarning`): the mean of those present.

    Cost: $O(\text{tasks}^3)$ on the CPU.

    Departures: the authors add 1e-8 to $\hat v_i$, which is not small for small gradients; here it is 0. They
    enumerate the sets of active constraints; here the same problem is solved as a least-distance problem by
    non-negative least squares. Averages count a task's own steps only. The
    defaults were not verified against the paper.

    Args:
        primary: The task that comes first, by name or index.
        tau: Progress guaranteed to every other task, as a share of that of a step along its own normalised gradient;
            from 0 to 1.
        beta: Decay of the average of squared norms, per step; at least 0, below 1.

    Raises:
        ValueError: If an argument is out of range, or (at `bind`) there is no such task.

    References:
        Varam, AlHajri, `Not All Objectives Are Born Equal: Priority-Constrained Descent for Hierarchical
        Multi-Objective Optimization <https://arxiv.org/abs/2606.29521>`_, TMLR 2026, the algorithm for
        several constraints (number not verified).
        Lawson, Hanson, `Solving Least Squares Problems <https://doi.org/10.1137/1.9781611971217>`_, 1974, chapter 23.

    Examples:
        >>> combiner = PCD(tau=0.5)
        >>> combiner(torch.tensor([[1.0, 0.0], [0.0, 10.0]]))  # the second task gets half of its own progress
        tensor([0.8944, 0.4472])
    """

    requires = "gramian"
    scale_invariant = True
    scale: ClassVar[str] = "norm of the primary gradient"
    paper = "Varam & AlHajri, Priority-Constrained Descent, TMLR 2026, https://arxiv.org/abs/2606.29521"
    mean_squares: Tensor  # [tasks]
    steps: Tensor  # [tasks]

    def __init__(self, primary: TaskKey = 0, tau: float = 0.02, beta: float = 0.999) -> None:
        super().__init__()
        if not 0 <= tau <= 1:
            raise ValueError(f"`tau` must be from 0 to 1, got {tau}.")
        self.primary, self.tau, self.beta = primary, float(tau), fraction("beta", beta)
        self.first = -1

    def allocate(self, num_tasks: int) -> None:
        """Find the primary task and start the averages."""
        assert self.tasks is not None
        assert len(self.tasks) == num_tasks
        self.first = task_indices("primary", self.primary, self.tasks)[0]
        self.register_buffer("mean_squares", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(num_tasks, dtype=torch.float64))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        inner = step.gramian.numpy()
        typical = self._typical_lengths(inner.diagonal(), step.tasks)
        num_tasks = len(step.tasks)
        if self.first not in step.tasks:
            return self.mean_instead(step, f"the primary task `{self.primary}` is absent")
        found = self._solve(inner, typical, step.tasks.index(self.first), relative_precision(step.like, num_tasks))
        if found is None:
            return self.mean_instead(step, "the non-negative least squares did not converge", warn=True)
        return step.leave(torch.from_numpy(found))

    def _typical_lengths(self, squares: np.ndarray, tasks: list[int]) -> np.ndarray:  # [present] -> [present]
        """Compute √v̂_i, the root of the bias-corrected average of squared norms, for the present tasks."""
        mean_squares, steps = self.mean_squares.numpy(), self.steps.numpy()  # views
        steps[tasks] += 1
        mean_squares[tasks] = self.beta * mean_squares[tasks] + (1 - self.beta) * squares
        return np.sqrt(mean_squares[tasks] / (1 - self.beta ** steps[tasks]))

    def _solve(self, inner: np.ndarray, typical: np.ndarray, first: int, precision: float) -> np.ndarray | None:
        """Compute the weights of the present tasks, None where a solve did not end; `first` is the primary row."""
        cosines, lengths = unit_rows(inner)
        if lengths[first] == 0:
            self.note("the primary gradient is zero: the update is 0")
            return np.zeros(len(lengths))
        own = over_lengths(lengths, typical)  # lengths of the normalised gradients
        others = np.flatnonzero((lengths > 0) & (np.arange(len(lengths)) != first))
        coefficients = np.zeros(len(lengths))  # of the unit rows in the direction
        coefficients[first] = own[first]
        # What g̃_p alone misses of each constraint, divided by ‖g̃_j‖.
        missing = self.tau * own[others] - own[first] * cosines[first, others]
        if (missing > 0).any():
            multipliers = least_distance(cholesky_rows(cosines, precision)[others], missing, precision)
            if multipliers is None:
                return None
            if not multipliers.any():
                self.note("no direction gives every task its progress: the step follows the primary task alone")
            coefficients[others] = multipliers
        squared = float(coefficients @ cosines @ coefficients)
        if squared <= precision * float(np.abs(coefficients).sum()) ** 2:
            self.note("the constraints leave no direction: the update is 0")
            return np.zeros(len(lengths))
        return over_lengths(coefficients, lengths) * (lengths[first] / np.sqrt(squared))


def least_distance(
    rows: np.ndarray,  # [rows, coordinates]
    bounds: np.ndarray,  # [rows]
    precision: float,
) -> np.ndarray | None:  # [rows]
    """Compute the multipliers λ of the shortest `x = rowsᵀ λ` with `rows x >= bounds`; zeros where there is none."""
    # Lawson and Hanson, chapter 23: with the residual r of min_{λ ≥ 0} ‖[rowsᵀ; bounds] λ - (0, 1)‖, x = -r / r_last.
    size = float(np.abs(bounds).max())
    system = np.vstack([rows.T, bounds / size])
    target = np.zeros(len(system))
    target[-1] = 1.0
    multipliers = nonnegative_solve(system, target)
    if multipliers is None:
        return None
    residual = 1.0 - float(bounds @ multipliers) / size  # the squared residual of the least-squares problem
    if residual <= precision:
        return np.zeros(len(rows))
    return multipliers * (size / residual)
