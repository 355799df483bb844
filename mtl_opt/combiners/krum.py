"""The gradients that have the closest neighbours."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import at_least
from mtl_opt.combiners.base import Combiner


class Krum(Combiner):
    r"""Average the gradients whose closest neighbours are closest: outliers, however large, are left out.

    With $m$ present tasks of which $f$ may send anything, and $N_i$ the $m - f - 2$ other gradients closest to $g_i$:

    $$ s_i = \sum_{j \in N_i} \lVert g_i - g_j \rVert^2, \qquad
       d = \frac1k \sum_{i \in S} g_i, \qquad S = \text{the } k \text{ tasks of smallest } s_i $$

    Scale: mean. Ties go to the first task.

    Undefined: it needs $m \ge f + 3$ and $m \ge k$; a step with fewer present tasks takes the mean. The paper's
    guarantee needs $m \ge 2f + 3$.

    Cost: $O(\text{tasks}^2 \log \text{tasks})$ on the CPU.

    Departures: none from the paper. There the rows are the same gradient estimated by several workers; between tasks
    nothing says that the outlier is wrong.

    Args:
        num_byzantine: Number $f$ of gradients that may be anything, at least 0.
        num_selected: Number $k$ of gradients that are averaged, at least 1; 1 is Krum, more is Multi-Krum.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Blanchard, El Mhamdi, Guerraoui, Stainer, `Machine Learning with Adversaries: Byzantine Tolerant Gradient
        Descent <https://arxiv.org/abs/1703.02757>`_, NeurIPS 2017, section 4.

    Examples:
        >>> gradients = torch.tensor([[1.0, 0.0], [1.0, 0.1], [9.0, 9.0]])
        >>> Krum(num_selected=2)(gradients)
        tensor([1.0000, 0.0500])
    """

    requires = "gramian"
    scale: ClassVar[str] = "mean"
    paper = "Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017, https://arxiv.org/abs/1703.02757"

    def __init__(self, num_byzantine: int = 0, num_selected: int = 1) -> None:
        super().__init__()
        self.num_byzantine = at_least("num_byzantine", num_byzantine, 0)
        self.num_selected = at_least("num_selected", num_selected, 1)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        num_tasks = len(step.tasks)
        num_closest = num_tasks - self.num_byzantine - 2
        if num_closest < 1 or num_tasks < self.num_selected:
            needed = max(self.num_byzantine + 3, self.num_selected)
            return self.mean_instead(step, f"{num_tasks} present tasks are fewer than the {needed} it needs")
        inner = step.gramian.numpy()
        inner = (inner + inner.T) / 2  # two tasks that are each other's neighbour must tie exactly
        # ‖g_i - g_j‖² = G_ii + G_jj - 2 G_ij; the score sums the smallest m - f - 2 of a row.
        squared = np.diag(inner)
        distances = np.maximum(squared[:, None] + squared - 2 * inner, 0.0)
        np.fill_diagonal(distances, np.inf)
        distances.sort(axis=1)
        scores = distances[:, :num_closest].sum(1)
        weights = np.zeros(num_tasks)
        weights[np.argsort(scores, kind="stable")[: self.num_selected]] = 1 / self.num_selected
        return step.leave(torch.from_numpy(weights))
