"""Task weights from how far each loss has come since the start."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import at_least, positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.losses import SMALLEST_LOSS, non_negative_losses, softmax


class LearningSpeed(Combiner):
    r"""Raise the weight of tasks whose loss has fallen less, relative to where it started.

    With $\bar L_i(0)$ the mean of the first losses of task $i$ and $\bar L_i(t)$ that of its latest ones, both over a
    window:

    $$ w = \operatorname{softmax}\Bigl(-\frac{v_i}{T}\Bigr), \qquad
       v_i = \frac{\bar L_i(0) - \bar L_i(t)}{\bar L_i(0)} $$

    A task at a tenth of its first loss has descended by 0.9, one that rose by half has descended by −0.5.
    `DynamicWeightAverage` compares neighbouring windows, this method the whole way. The loss of the step itself is
    among the latest ones.

    Scale: simplex (the weights add up to 1).

    Undefined: until a task has been present for more than one window its descent is 0, and so it is where it started at
    loss 0.

    Cost: $O(\text{tasks} \times \text{window})$.

    Departures: there is no paper of this form. Loss-balanced task weighting uses the same ratio $1 - v_i$, of single
    batches, raised to a power; GradNorm uses it as its inverse training rate. The means over a window keep the
    noise of single batches out.

    Args:
        temperature: Divides the descents; a large one weights all tasks alike.
        window: Length of both means in steps of the task.

    Raises:
        ValueError: If an argument is out of range, no losses are passed, or one is negative.

    References:
        Liu, Liang, Gitter, `Loss-Balanced Task Weighting to Reduce Negative Transfer in Multi-Task Learning
        <https://doi.org/10.1609/aaai.v33i01.33019977>`_, AAAI 2019, Algorithm 1 (number not
        verified), for the ratio.

    Examples:
        >>> combiner = LearningSpeed(window=1)
        >>> combiner.weights(None, torch.tensor([1.0, 4.0]))
        tensor([0.5000, 0.5000])
        >>> combiner.weights(None, torch.tensor([1.0, 2.0]))
        tensor([0.6225, 0.3775])
    """

    requires = "losses"
    scale: ClassVar[str] = "simplex"
    paper = "Liu et al., Loss-Balanced Task Weighting, AAAI 2019, https://doi.org/10.1609/aaai.v33i01.33019977"
    first_total: Tensor  # [tasks]
    latest: Tensor  # [tasks, window]
    count: Tensor  # [tasks]

    def __init__(self, temperature: float = 1.0, window: int = 20) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)
        self.window = at_least("window", window, 1)

    def allocate(self, num_tasks: int) -> None:
        """Start with no loss seen."""
        self.register_buffer("first_total", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("latest", torch.zeros(num_tasks, self.window, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(num_tasks, dtype=torch.float64))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        self._record(non_negative_losses(self, step), np.asarray(step.tasks))
        return step.leave(torch.from_numpy(softmax(-self._descents(step.tasks), self.temperature)))

    def _record(self, losses: np.ndarray, tasks: np.ndarray) -> None:  # [present], [present]
        """Write the losses over the oldest of the window, and add them to the first ones while these are collected."""
        count = self.count.numpy()
        self.latest.numpy()[tasks, count[tasks].astype(int) % self.window] = losses
        self.first_total.numpy()[tasks] += np.where(count[tasks] < self.window, losses, 0.0)
        count[tasks] += 1

    def _descents(self, tasks: list[int]) -> np.ndarray:  # [present]
        """Compute v_i, the share of its first loss by which every present task has descended."""
        seen = np.minimum(self.count[tasks].numpy(), self.window)
        first, latest = self.first_total[tasks].numpy() / seen, self.latest[tasks].numpy().sum(1) / seen
        with np.errstate(over="ignore"):
            ratios = np.minimum(latest / np.maximum(first, SMALLEST_LOSS), 1 / SMALLEST_LOSS)
        return np.where(first > 0, 1 - ratios, 0.0)
