"""Task weights from how fast each loss fell over the last two windows."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import at_least, positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.losses import SMALLEST_LOSS, non_negative_losses, softmax


class DynamicWeightAverage(Combiner):
    r"""Raise the weight of tasks whose loss fell less from one window of steps to the next.

    With $\bar L_i(k)$ the mean loss of task $i$ over its $k$-th window and $m$ present tasks:

    $$ w_i = m \operatorname{softmax}\Bigl(\frac{r_i}{T}\Bigr), \qquad
       r_i = \frac{\bar L_i(k-1)}{\bar L_i(k-2)}, \qquad r_i = 1 \text{ before two windows are complete} $$

    Scale: sum (the weights of the present tasks add up to their number). Ratios hardly differ from 1, so that the
    weights stay close to equal unless the temperature is small.

    Undefined: a window whose mean loss is 0 is followed by $r_i = 1$.

    Cost: $O(\text{tasks})$.

    Departures: the paper's window is an epoch, which tasks of different sizes do not share; here it is a number of
    steps in which the task is present, and every task closes its own windows. Some code slides the window and
    leaves out the factor $m$.

    Args:
        temperature: Divides the ratios; a large one weights all tasks alike.
        window: Length of a window in steps of the task.

    Raises:
        ValueError: If an argument is out of range, no losses are passed, or one is negative.

    References:
        Liu, Johns, Davison, `End-to-End Multi-Task Learning with Attention <https://arxiv.org/abs/1803.10704>`_,
        CVPR 2019, equation 7.

    Examples:
        >>> combiner = DynamicWeightAverage(window=1)
        >>> for losses in ([1.0, 1.0], [1.0, 0.5], [1.0, 0.5]):
        ...     print(combiner.weights(None, torch.tensor(losses)))
        tensor([1., 1.])
        tensor([1., 1.])
        tensor([1.1244, 0.8756])
    """

    requires = "losses"
    scale: ClassVar[str] = "sum"
    paper = "Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019, https://arxiv.org/abs/1803.10704"
    total: Tensor  # [tasks]
    count: Tensor  # [tasks]
    newer: Tensor  # [tasks]
    older: Tensor  # [tasks]
    num_windows: Tensor  # [tasks]

    def __init__(self, temperature: float = 2.0, window: int = 25) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)
        self.window = at_least("window", window, 1)

    def allocate(self, num_tasks: int) -> None:
        """Start with no complete window."""
        for name in ("total", "count", "newer", "older", "num_windows"):
            self.register_buffer(name, torch.zeros(num_tasks, dtype=torch.float64))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        values = non_negative_losses(self, step)
        # Equation 7, with the ratios of complete windows: this step's losses count from the next step on.
        weights = len(values) * softmax(self._ratios(step.tasks), self.temperature)
        self._record(values, step.tasks)
        return step.leave(torch.from_numpy(weights))

    def _ratios(self, tasks: list[int]) -> np.ndarray:  # [present]
        """Compute r_i, the mean loss of the last window over that of the one before."""
        newer, older = self.newer.numpy()[tasks], self.older.numpy()[tasks]
        known = (self.num_windows.numpy()[tasks] >= 2) & (older > 0)
        with np.errstate(over="ignore"):
            ratios = np.minimum(newer / np.maximum(older, SMALLEST_LOSS), 1 / SMALLEST_LOSS)
        return np.where(known, ratios, 1.0)

    def _record(self, losses: np.ndarray, tasks: list[int]) -> None:  # [present]
        """Add the losses to the open windows and close those that are full."""
        count = self.count.numpy()  # a view, as that of `total`
        self.total.numpy()[tasks] += losses
        count[tasks] += 1
        full = [task for task in tasks if count[task] >= self.window]
        if full:
            self.older[full] = self.newer[full]
            self.newer[full] = self.total[full] / self.window
            self.total[full] = 0.0
            self.count[full] = 0.0
            self.num_windows[full] += 1
