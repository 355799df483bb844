"""Gradient vaccine: bring every pair of gradients to the cosine that it usually has."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.solvers import draw_orders, over_lengths, unit_rows

MAX_TARGET = 1 - 1e-6
"""Largest cosine asked for: at 1 the correction has no bound."""


class GradVac(Combiner):
    r"""Turn every task gradient towards the others until each pair has at least its usual cosine, then add them up.

    For every task $i$, with $g_i' \leftarrow g_i$ and the other tasks $j$ in random order, with the cosine
    $\phi_{ij} = \cos(g_i', g_j)$ and its moving average $\hat\phi_{ij}$:

    $$ g_i' \leftarrow g_i' + \frac{\lVert g_i' \rVert \bigl(\hat\phi_{ij} \sqrt{1 - \phi_{ij}^2}
         - \phi_{ij} \sqrt{1 - \hat\phi_{ij}^2}\bigr)}{\lVert g_j \rVert \sqrt{1 - \hat\phi_{ij}^2}}\, g_j
       \quad \text{if } \phi_{ij} < \hat\phi_{ij}, \qquad
       \hat\phi_{ij} \leftarrow (1 - \beta)\, \hat\phi_{ij} + \beta\, \phi_{ij}, \qquad d = \sum_i g_i' $$

    Afterwards $\cos(g_i', g_j) = \hat\phi_{ij}$. With a target of 0 the first step is that of `PCGrad`, and with
    $\beta = 0$ every step is. All of it is done on the cosines: no gradient is touched.

    Scale: sum (it equals `Sum` where every cosine is above its target).

    Undefined: a zero gradient has no cosine: it is neither corrected nor a target for others, and a pair with it keeps
    its average, as does the pair of an absent task. A gradient that a correction brought to 0 stays there.

    Cost: $O(\text{tasks}^3)$ on the CPU.

    Departures: the paper keeps one average per parameter group as well; wrap it in `Scoped` for that. The target
    used in a correction is at most $1 - 10^{-6}$: at 1 the formula divides by 0. The average takes every cosine,
    corrected or not, measured on $g_i'$ as it is when task $i$ meets task $j$.

    Args:
        target: Cosine aimed at in the first step, in (-1, 1).
        beta: Share of the new cosine in the moving average, in [0, 1]; 0 keeps the target.
        seed: Seed of the private generator of the orders.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Wang, Tsvetkov, Firat, Cao, `Gradient Vaccine: Investigating and Improving Multi-task Optimization in
        Massively Multilingual Models <https://arxiv.org/abs/2010.05874>`_, ICLR 2021, Algorithm 1, equations 2 and 3.

    Examples:
        >>> GradVac().weights(torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([2.2222, 1.5789])
    """

    requires = "gramian"
    scale: ClassVar[str] = "sum"
    paper = "Wang et al., Gradient Vaccine, ICLR 2021, https://arxiv.org/abs/2010.05874"
    targets: Tensor  # [tasks, tasks]

    def __init__(self, target: float = 0.0, beta: float = 0.01, seed: int = 0) -> None:
        super().__init__(seed)
        if not -1 < target < 1:
            raise ValueError(f"`target` must be between -1 and 1, got {target}.")
        if not 0 <= beta <= 1:
            raise ValueError(f"`beta` must be in [0, 1], got {beta}.")
        self.target = float(target)
        self.beta = float(beta)

    def allocate(self, num_tasks: int) -> None:
        """Start every pair at the given target."""
        self.register_buffer("targets", torch.full((num_tasks, num_tasks), self.target, dtype=torch.float64))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        cosines, lengths = unit_rows(step.gramian.numpy())
        block = np.ix_(step.tasks, step.tasks)
        targets = self.targets.numpy()
        added, seen = vaccinate(cosines, targets[block], draw_orders(len(lengths), self.generator))
        old = targets[block]
        targets[block] = np.where(np.isnan(seen), old, old + self.beta * (seen - old))
        return step.leave(torch.from_numpy(1.0 + over_lengths(lengths @ added, lengths)))


def vaccinate(
    cosines: np.ndarray,  # [tasks, tasks]
    targets: np.ndarray,  # [tasks, tasks]
    orders: np.ndarray,  # [tasks, tasks]
) -> tuple[np.ndarray, np.ndarray]:  # [tasks, tasks], [tasks, tasks]
    """Correct every unit gradient against all others; all tasks meet their next one at the same time."""
    num_tasks = len(cosines)
    rows = np.arange(num_tasks)
    alive = np.diag(cosines) > 0
    meets = alive[:, None] & alive & ~np.eye(num_tasks, dtype=bool)
    target = np.where(meets, np.minimum(targets, MAX_TARGET), -1.0)[rows[:, None], orders].T.copy()
    # Over the length of the orthogonal part: the new length, and the new inner product. Nothing is below -1.
    stretch = 1 / np.sqrt(np.maximum(1 - target**2, math.ulp(1.0)))
    products = cosines.copy()  # of every corrected gradient with every original one
    lengths = alive.astype(float)
    met_product, met_length, steps = (np.empty((num_tasks, num_tasks)) for _ in range(3))
    for turn, met in enumerate(orders.T):
        product = products[rows, met]
        met_product[turn], met_length[turn] = product, lengths
        # A correction leaves the part orthogonal to the other gradient as it is: the new length is that part's length
        # over √(1 - φ̂²), without cancellation.
        new = np.sqrt(np.maximum(lengths * lengths - product * product, 0.0)) * stretch[turn]
        low = product < target[turn] * lengths
        change = np.where(low, new * target[turn] - product, 0.0)
        steps[turn] = change
        lengths = np.where(low, new, lengths)
        products += change[:, None] * cosines[met]
    added, seen = np.zeros((num_tasks, num_tasks)), np.full((num_tasks, num_tasks), np.nan)
    np.put_along_axis(added, orders, steps.T, axis=1)
    gone = met_length < 1e-7  # what is left of the gradient is rounding and has no direction
    cosine = np.where(gone, np.nan, met_product / np.where(gone, 1.0, met_length)).T
    np.put_along_axis(seen, orders, np.clip(cosine, -1.0, 1.0), axis=1)
    return added, np.where(meets, seen, np.nan)
