"""Direction-oriented multi-objective descent with weights from two independent samples."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import at_least, fraction, positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.solvers import project_onto_simplex


class SDMGrad(Combiner):
    r"""Descend to the shortest vector of the gradients' hull, pulled towards their mean, by unbiased inner products.

    With the gradients $J_1, J_2$ of two independent halves of every task's rows, $A = J_1 J_2^\top / s^2$ with
    $s = \operatorname{mean}_i \sqrt{\max((J_1 J_2^\top)_{ii}, 0)}$, the equal weights $\tilde w = 1/m$ and the
    projection $\Pi$ onto the simplex, `num_iter` steps of descent with momentum $\mu$ from the last step's $w$:

    $$ v \leftarrow \mu v + A (w + \lambda \tilde w), \qquad w \leftarrow \Pi(w - \eta\, v), \qquad
       d = \frac{1}{1 + \lambda} \sum_i (w_i + \lambda \tilde w_i)\, \frac{g_{1,i} + g_{2,i}}{2} $$

    A Gramian of one sample has the noise of the rows on its diagonal, which biases the weights towards tasks of little
    noise; in $J_1 J_2^\top$ the noise averages out.

    Scale: simplex (the weights add up to 1). The present tasks share what weight they have among themselves.

    Undefined: where no task has a positive product of its two halves there is no scale: $w$ stays as it is, and the
    event says so.

    Cost: $O(\text{num\_iter} \cdot \text{tasks}^2)$ on the CPU; two rows per task in memory.

    Departures: the paper draws three samples, two for the weights and a third for the update; here the update is the
    mean over the two halves whose products chose the weights. The authors' code adds 1e-8 to $s^2$, which is not
    small for small gradients; here it is 0. Their class has $\lambda = 0.6$; the default here is that of their
    experiments (run scripts of NYUv2). The rates were checked against TorchJD's account of that code.

    Args:
        lambda_: Strength $\lambda$ of the pull towards the mean gradient, at least 0; 0 is stochastic MGDA.
        lr: Step size $\eta$ of the weights, positive, for products divided by $s^2$.
        momentum: $\mu$, at least 0, below 1; every step starts without velocity.
        num_iter: Iterations per step, at least 1.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Xiao, Ban, Ji, `Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms
        <https://arxiv.org/abs/2305.18409>`_, NeurIPS 2023, Algorithm 1 (number not verified).

    Examples:
        >>> halves = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 1.0]]])  # [2, tasks, params]
        >>> SDMGrad(lambda_=0.0, lr=0.5, momentum=0.0)(halves)  # the shortest of the hull
        tensor([0.4000, 0.8000])
    """

    requires = "halves"
    scale: ClassVar[str] = "simplex"
    paper = "Xiao et al., Direction-oriented Multi-objective Learning, NeurIPS 2023, https://arxiv.org/abs/2305.18409"
    learnt: Tensor  # [tasks]

    def __init__(self, lambda_: float = 0.3, lr: float = 10.0, momentum: float = 0.5, num_iter: int = 20) -> None:
        super().__init__()
        self.lambda_, self.momentum = positive("lambda_", lambda_, zero=True), fraction("momentum", momentum)
        self.lr = positive("lr", lr)
        self.num_iter = at_least("num_iter", num_iter, 1)

    @override
    def allocate(self, num_tasks: int) -> None:
        """Start with equal weights."""
        self.register_buffer("learnt", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        num_tasks = len(step.tasks)
        mass = float(self.learnt[step.tasks].sum())
        start = self.learnt[step.tasks].numpy() / mass if mass > 0 else np.full(num_tasks, 1 / num_tasks)
        products = step.gramian.numpy()
        scale = float(np.sqrt(np.maximum(np.diag(products), 0.0)).mean())
        if scale > 0:
            found = self._descend(products / scale / scale, start)
        else:
            self.note("no task has a positive product of its two halves: the weights stay as they are")
            found = start
        self.learnt[step.tasks] = torch.from_numpy(found * mass)
        return step.leave(torch.from_numpy((found + self.lambda_ / num_tasks) / (1 + self.lambda_)))

    def _descend(self, products: np.ndarray, weights: np.ndarray) -> np.ndarray:  # [tasks, tasks], [tasks] -> [tasks]
        """Update the weights by projected descent with momentum."""
        velocity = np.zeros_like(weights)
        for _ in range(self.num_iter):
            # v ← μ v + A (w + λ w̃), w ← Π(w - η v)
            velocity = self.momentum * velocity + products @ (weights + self.lambda_ / len(weights))
            weights = project_onto_simplex(weights - self.lr * velocity)
        return weights
