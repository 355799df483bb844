"""Weights averaged over steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import fraction
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.blocks import BlockWeights, gramians_by_block
from mtl_opt.combiners.wrappers.base import Wrapper, need_weights


class Smoothed(Wrapper):
    r"""Average a combiner's weights over steps.

    $$ \bar w_t = \beta\, \bar w_{t-1} + (1 - \beta)\, w_t, \qquad \bar w_1 = w_1 $$

    This is CR-MOGM, the correction under which stochastic multi-objective methods converge. Around `Scoped` every
    block has its own averages.

    Scale: that of the wrapped combiner.

    Undefined: before a task's first step; its average starts with its first weight. An absent task keeps its average.

    Cost: none.

    Departures: the share of the past is constant, as in TorchJD; whether the paper changes it with the steps was not
    verified.

    Args:
        combiner: The combiner whose weights are averaged.
        beta: Share of the past, at least 0, below 1.

    Raises:
        ValueError: If the combiner has no weights, or `beta` is out of range.

    References:
        Zhou, Zhang, Jiang, Zhong, Gu, Zhu, `On the Convergence of Stochastic Multi-Objective Gradient Manipulation
        and Beyond <https://papers.neurips.cc/paper_files/paper/2022/hash/f91bd64a3620aad8e70a27ad9cb3ca57-Abstract-Conference.html>`_,
        NeurIPS 2022.

    Examples:
        >>> from mtl_opt.combiners.pcgrad import PCGrad
        >>> combiner = Smoothed(PCGrad(), beta=0.5)
        >>> combiner.weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000])
        >>> combiner.weights(torch.eye(2))
        tensor([1.2500, 1.2500])
    """

    def __init__(self, combiner: Combiner, beta: float = 0.9) -> None:
        super().__init__(combiner)
        need_weights(combiner, "Smoothed")
        self.beta = fraction("beta", beta)

    @override
    def allocate(self, num_tasks: int) -> None:
        super().allocate(num_tasks)
        self.averaged = BlockWeights(num_tasks)

    @override
    def weights(
        self,
        gramian: Tensor | Mapping[str, Tensor] | None,
        losses: Tensor | None = None,
        *,
        tasks: Sequence[int] | None = None,
    ) -> Any:  # a Tensor, or one per block around Scoped
        blocks = gramians_by_block(gramian, self.by, "Smoothed")
        step = self.enter(next(iter(blocks.values())), losses, tasks)
        self.averaged.split(list(blocks))
        found = self.averaged.stacked(self.inner_weights(gramian, blocks, losses, step.tasks))
        past = self.averaged.value[step.tasks]
        # w̄ ← β w̄ + (1 - β) w; NaN marks a task without a past, whose average starts at w.
        averaged = torch.where(past.isnan(), found, self.beta * past + (1 - self.beta) * found)
        self.averaged.value[step.tasks] = averaged
        return self.averaged.per_block(step.tasks, gramian, step.like)
