"""Weights that are kept for several steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import at_least
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.blocks import BlockWeights, gramians_by_block
from mtl_opt.combiners.wrappers.base import Wrapper, need_weights


class Every(Wrapper):
    """Compute new weights once in `k` steps and keep them in between.

    Saves the cost of expensive weights, and steadies them. In between, the wrapped combiner sees nothing. Around
    `Scoped` the weights of all blocks are kept.

    Scale: that of the wrapped combiner.

    Undefined: where a task is present that has no weight yet: new weights are computed at once. A task that was absent
    when the weights were computed keeps the weight it had before.

    Cost: 1/k of that of the combiner.

    Departures: none.

    Args:
        combiner: A combiner with weights.
        k: Steps for which weights are used, at least 1.

    Raises:
        ValueError: If the combiner has no weights, or `k` is no whole number of at least 1.

    References:
        Navon et al., `Multi-Task Learning as a Bargaining Game <https://arxiv.org/abs/2202.01017>`_, ICML 2022:
        their code updates its weights every few steps.

    Examples:
        >>> from mtl_opt.combiners.pcgrad import PCGrad
        >>> combiner = Every(PCGrad(), k=2)
        >>> combiner.weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000])
        >>> combiner.weights(torch.eye(2))
        tensor([1.5000, 1.5000])
        >>> combiner.weights(torch.eye(2))
        tensor([1., 1.])
    """

    left: Tensor  # []

    def __init__(self, combiner: Combiner, k: int) -> None:
        super().__init__(combiner)
        need_weights(combiner, "Every")
        self.k = at_least("k", k, 1)

    @override
    def allocate(self, num_tasks: int) -> None:
        super().allocate(num_tasks)
        self.kept = BlockWeights(num_tasks)
        self.register_buffer("left", torch.tensor(0))

    @override
    def weights(
        self,
        gramian: Tensor | Mapping[str, Tensor] | None,
        losses: Tensor | None = None,
        *,
        tasks: Sequence[int] | None = None,
    ) -> Any:  # a Tensor, or one per block around Scoped
        blocks = gramians_by_block(gramian, self.by, "Every")
        steps = [self.enter(block, losses, tasks) for block in blocks.values()]
        present = steps[0].tasks
        self.kept.split(list(blocks))
        if int(self.left) == 0 or bool(self.kept.value[present].isnan().any()):
            found = self.inner_weights(gramian, blocks, losses, present)
            self.kept.value[present] = self.kept.stacked(found)
            self.left.fill_(self.k)
        self.left -= 1
        return self.kept.per_block(present, gramian, steps[0].like)
