"""Gradient surgery: project conflicting gradients onto each other's normal plane."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.solvers import draw_orders


class PCGrad(Combiner):
    r"""Remove from every task gradient the part that points against another task's gradient, then add them up.

    For every task $i$, with $g_i^{PC} \leftarrow g_i$ and the other tasks $j$ in random order:

    $$ g_i^{PC} \leftarrow g_i^{PC} - \frac{\langle g_i^{PC}, g_j \rangle}{\lVert g_j \rVert^2}\, g_j
       \quad \text{if } \langle g_i^{PC}, g_j \rangle < 0, \qquad d = \sum_i g_i^{PC} $$

    The projections are run on the coefficients of each $g_i^{PC}$ in the rows, where every inner product is a
    product with the Gramian: no gradient is touched, and the result is the same.

    Scale: sum (it equals `Sum` where nothing conflicts). With three or more tasks the result may still conflict with
    some task: later projections can undo earlier ones.

    Undefined: nowhere. A zero gradient conflicts with nobody.

    Cost: $O(\text{tasks}^3)$ on the CPU.

    Departures: none from the paper. The authors' code shuffles the losses without using the result, so that its
    order is fixed; here every task draws its own order in every step, from a private generator.

    Args:
        seed: Seed of the private generator of the orders.

    References:
        Yu, Kumar, Gupta, Levine, Hausman, Finn, `Gradient Surgery for Multi-Task Learning
        <https://arxiv.org/abs/2001.06782>`_, NeurIPS 2020, Algorithm 1.

    Examples:
        >>> PCGrad().weights(torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([2.2222, 1.5789])
    """

    requires = "gramian"
    scale: ClassVar[str] = "sum"
    paper = "Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, https://arxiv.org/abs/2001.06782"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        inner = step.gramian.numpy()
        num_tasks = len(step.tasks)
        squared = np.where(np.diag(inner) > 0, np.diag(inner), np.inf)
        rows = np.arange(num_tasks)
        coefficients = np.eye(num_tasks)  # row i: g_i^PC in terms of the task gradients
        for met in draw_orders(num_tasks, self.generator).T:  # every task meets its next one: met[i] for task i
            product = np.einsum("it,it->i", coefficients, inner[met])
            conflict = (product < 0) & (met != rows)
            # g_i ← g_i - ⟨g_i, g_j⟩ / ‖g_j‖² g_j where they conflict
            coefficients[rows, met] -= np.where(conflict, product / squared[met], 0.0)
        return step.leave(torch.from_numpy(coefficients.sum(0)))
