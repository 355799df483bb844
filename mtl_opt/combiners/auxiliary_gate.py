"""Auxiliary tasks count only while they point the way of the main tasks."""

from typing import ClassVar

import numpy as np
from typing_extensions import override

from mtl_opt.combiners.common.main_tasks import AroundMain


class AuxiliaryGate(AroundMain):
    r"""Add an auxiliary gradient whole while its cosine to the main tasks' gradient is positive, else not at all.

    $$ d = g_M + \sum_{i \notin M} \mathbb 1\bigl[\cos(g_i, g_M) > 0\bigr]\, g_i, \qquad g_M = \sum_{j \in M} g_j $$

    The update never points against $g_M$, so that training converges to where the main tasks do.

    Scale: sum (it equals `Sum` while every gate is open).

    Undefined: a zero $g_M$ has no direction: all gates are closed. All main tasks absent: the step takes the mean of
    those present.

    Cost: $O(\text{tasks}^2)$ on the CPU.

    Departures: the paper has one main task; with several, their sum stands for it. Its gate is half open at a cosine
    of exactly 0, here it is closed. The paper's other version, which weights by the cosine itself, is not offered.

    Args:
        main: The main tasks, by name or index; all others are auxiliary.

    Raises:
        ValueError: If (at `bind`) there is no such task, or one is named twice.

    References:
        Du, Czarnecki, Jayakumar, Farajtabar, Pascanu, Lakshminarayanan, `Adapting Auxiliary Losses Using Gradient
        Similarity <https://arxiv.org/abs/1812.02224>`_, 2018, the unweighted version of the
        method (number of the algorithm not verified).

    Examples:
        >>> import torch
        >>> gate = AuxiliaryGate(main=[0])
        >>> gate.weights(torch.tensor([[1.0, -0.5, 0.2], [-0.5, 1.0, 0.0], [0.2, 0.0, 1.0]]))
        tensor([1., 0., 1.])
    """

    requires = "gramian"
    scale: ClassVar[str] = "sum"
    paper = "Du et al., Adapting Auxiliary Losses Using Gradient Similarity, 2018, https://arxiv.org/abs/1812.02224"

    @override
    def around(self, cosines: np.ndarray, lengths: np.ndarray, is_main: np.ndarray, precision: float) -> np.ndarray:
        # ⟨u_i, g_M⟩ has the sign of cos(g_i, g_M), and is 0 where g_M is.
        agreement = cosines[:, is_main] @ lengths[is_main]
        return (is_main | (agreement > 0)).astype(np.float64)
