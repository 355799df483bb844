"""Random task weights, drawn anew in every step."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.losses import softmax


class RandomLossWeighting(Combiner):
    r"""Weight the tasks at random, anew in every step: the baseline that a weighting method has to beat.

    $$ w = \operatorname{softmax}(z), \qquad z_i \sim \mathcal N(0, 1) $$

    In expectation every task has the same weight, so that it is equal weighting with more noise.

    Scale: simplex (the weights add up to 1). A number is drawn for every bound task, present or not; the softmax runs
    over the present ones.

    Undefined: nowhere.

    Cost: none.

    Departures: none from the paper.

    Args:
        seed: Seed of the private generator.

    References:
        Lin, Ye, Zhang, Tsang, `Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning
        <https://arxiv.org/abs/2111.10603>`_, TMLR 2022, Algorithm 2 with the normal distribution.

    Examples:
        >>> combiner = RandomLossWeighting(seed=1)
        >>> combiner.weights(None, torch.tensor([1.0, 1.0]))
        tensor([0.5973, 0.4027])
        >>> combiner.weights(None, torch.tensor([1.0, 1.0]))
        tensor([0.3636, 0.6364])
    """

    requires = "losses"
    scale: ClassVar[str] = "simplex"
    paper = "Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022, https://arxiv.org/abs/2111.10603"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        assert self.tasks is not None
        drawn = torch.randn(len(self.tasks), generator=self.generator, dtype=torch.float64)
        return step.leave(torch.from_numpy(softmax(drawn[step.tasks].numpy())))
