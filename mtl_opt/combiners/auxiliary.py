"""Auxiliary tasks count only while they point the way of the main tasks."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.names import TaskKey, task_indices
from mtl_opt.combiners.solvers import unit_rows


class AuxiliaryGate(Combiner):
    r"""Add an auxiliary gradient whole while its cosine to the main tasks' gradient is positive, else not at all.

    $$ d = g_M + \sum_{i \notin M} \mathbb 1\bigl[\cos(g_i, g_M) > 0\bigr]\, g_i, \qquad g_M = \sum_{j \in M} g_j $$

    The update never points against $g_M$, so that training converges to where the main tasks do.

    Scale: sum (it equals `Sum` while every gate is open). A zero $g_M$ has no direction: all gates are closed. All
    main tasks absent: the step takes the mean of those present. Cost: $O(\text{tasks}^2)$ on the CPU.

    Departures: the paper has one main task; with several, their sum stands for it. Its gate is half open at a cosine
    of exactly 0, here it is closed. The paper's other version, which weights by the cosine itself, is not offered.

    Args:
        main: The main tasks, by name or index; all others are auxiliary.

    Raises:
        ValueError: If (at `bind`) there is no such task, or one is named twice.

    References:
        Du, Czarnecki, Jayakumar, Farajtabar, Pascanu, Lakshminarayanan, `Adapting Auxiliary Losses Using Gradient
        Similarity <https://arxiv.org/abs/1812.02224>`_, 2018, the unweighted version.

    Examples:
        >>> gate = AuxiliaryGate(main=[0])
        >>> gate.weights(torch.tensor([[1.0, -0.5, 0.2], [-0.5, 1.0, 0.0], [0.2, 0.0, 1.0]]))
        tensor([1., 0., 1.])
    """

    requires = "gramian"
    scale: ClassVar[str] = "sum"
    paper = "Du et al., Adapting Auxiliary Losses Using Gradient Similarity, 2018, https://arxiv.org/abs/1812.02224"

    def __init__(self, main: TaskKey | Sequence[TaskKey] = (0,)) -> None:
        super().__init__()
        self.main = main
        self.main_tasks: list[int] = []

    def allocate(self, num_tasks: int) -> None:
        """Find the main tasks.

        Args:
            num_tasks: Number of bound tasks.
        """
        assert self.tasks is not None
        assert len(self.tasks) == num_tasks
        self.main_tasks = task_indices("main", self.main, self.tasks)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        num_tasks = len(step.tasks)
        is_main = np.isin(step.tasks, self.main_tasks)
        if not is_main.any():
            return step.leave(torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))
        cosines, lengths = unit_rows(step.gramian.numpy())
        agreement = cosines[:, is_main] @ lengths[is_main]  # inner product of each unit gradient with g_M
        return step.leave(torch.from_numpy((is_main | (agreement > 0)).astype(np.float64)))
