"""Task weights learnt so that all tasks train at the same rate."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.adam import TaskAdam
from mtl_opt.combiners.common.losses import non_negative_losses

MIN_WEIGHT = 1e-3


class GradNorm(Combiner):
    r"""Learn task weights that bring the gradient norms of all tasks to a common scale, larger for lagging tasks.

    With $n_i = \lVert g_i \rVert$ over the chosen layers, $\tilde L_i = L_i(t) / L_i(0)$ and
    $r_i = \tilde L_i / \operatorname{mean}_j \tilde L_j$, the weights descend

    $$ L_{grad}(w) = \sum_i \bigl| w_i n_i - \bar n\, r_i^{\alpha} \bigr|, \qquad
       \bar n = \operatorname{mean}_j w_j n_j \text{ (a constant)}, \qquad
       \frac{\partial L_{grad}}{\partial w_i} = \operatorname{sign}(w_i n_i - \bar n\, r_i^{\alpha})\, n_i $$

    and are then scaled back to their sum. The step uses the weights from before the update, as in the paper.

    Scale: sum (the weights of all tasks add up to their number). $L_i(0)$ is the loss of the first step in which the
    task is present. When some tasks are absent, the present ones keep their own sum.

    Undefined: where all losses are 0; $r_i = 1$ is taken then. A zero gradient does not pull at its weight.

    Cost: $O(\text{tasks})$.

    Departures: the paper leaves the optimizer of the weights open; here it is an Adam of its own, outside the model's
    optimizer, so that neither weight decay nor the size of the gradients matters. Weights are kept at or above
    0.001 before scaling: the paper's formula lets them turn negative. The paper takes the norm over the last shared
    layer; with LoRA that means the adapters of the last layer.

    Args:
        alpha: Strength of the pull towards equal rates; 0 asks for equal gradient norms.
        lr: Learning rate of the private Adam, per step.
        layers: Layers over which the norms are taken: "last", "all", or a list of layer names.

    Raises:
        ValueError: If an argument is out of range, no losses are passed, or one is negative.

    References:
        Chen, Badrinarayanan, Lee, Rabinovich, `GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
        Multitask Networks <https://arxiv.org/abs/1711.02257>`_, ICML 2018, Algorithm 1.

    Examples:
        >>> combiner = GradNorm(lr=0.1)
        >>> gramian = torch.tensor([[100.0, 0.0], [0.0, 1.0]])
        >>> combiner.weights(gramian, torch.tensor([1.0, 1.0]))
        tensor([1., 1.])
        >>> combiner.weights(gramian, torch.tensor([1.0, 1.0]))
        tensor([0.9000, 1.1000])
    """

    requires = "gramian"
    scale: ClassVar[str] = "sum"
    paper = "Chen et al., GradNorm, ICML 2018, https://arxiv.org/abs/1711.02257"
    learnt: Tensor  # [tasks]
    first_losses: Tensor  # [tasks]

    def __init__(self, alpha: float = 1.5, lr: float = 0.025, layers: str | list[str] = "last") -> None:
        super().__init__()
        self.alpha = positive("alpha", alpha, zero=True)
        self.lr = positive("lr", lr)
        if isinstance(layers, str) and layers not in {"last", "all"}:
            raise ValueError(f"`layers` must be 'last', 'all' or a list of layer names, got {layers!r}.")
        self.over = layers

    def allocate(self, num_tasks: int) -> None:
        """Start every weight at 1, with no loss seen."""
        self.register_buffer("learnt", torch.ones(num_tasks, dtype=torch.float64))
        self.register_buffer("first_losses", torch.full((num_tasks,), torch.nan, dtype=torch.float64))
        self.adam = TaskAdam(num_tasks, self.lr)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        rates = self._relative_rates(non_negative_losses(self, step), step.tasks)
        weights = self.learnt.numpy()[step.tasks]
        self._learn(np.sqrt(step.gramian.numpy().diagonal()), rates, step.tasks)
        return step.leave(torch.from_numpy(weights))

    def _relative_rates(self, losses: np.ndarray, tasks: list[int]) -> np.ndarray:  # [present] -> [present]
        """Compute r_i, the share of its first loss at which a task is, relative to the mean over the present tasks."""
        first = self.first_losses.numpy()  # a view
        first[tasks] = np.where(np.isnan(first[tasks]), losses, first[tasks])
        left = losses / np.maximum(first[tasks], 1e-30)
        return left / left.mean() if left.sum() > 0 else np.ones_like(left)

    def _learn(self, norms: np.ndarray, rates: np.ndarray, tasks: list[int]) -> None:  # [present], [present]
        """Descend the distance between weighted and wanted norms, and keep the sum of the weights."""
        # ∂L_grad/∂w_i = sign(w_i n_i - n̄ r_i^α) n_i, where the target n̄ r_i^α is a constant.
        learnt = self.learnt.numpy()  # a view
        old = learnt[tasks]
        weighted = old * norms
        wanted = weighted.mean() * rates**self.alpha
        self.adam.step(self.learnt, torch.from_numpy(np.sign(weighted - wanted) * norms), tasks)
        new = np.maximum(learnt[tasks], MIN_WEIGHT)
        learnt[tasks] = new * old.sum() / new.sum()
