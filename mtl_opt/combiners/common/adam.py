"""Adam on one number per task, for combiners that learn weights by their own closed-form gradient."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class TaskAdam(nn.Module):
    """Adam with its usual constants on a `[tasks]` vector; tasks that are absent keep value and moments.

    A combiner keeps it beside what it learns, so that its moments are saved and no weight decay can reach them.

    Args:
        num_tasks: Length of the vector.
        lr: Learning rate: the size of a first step.

    References:
        Kingma, Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, ICLR 2015, Algorithm 1.
    """

    first: Tensor  # [tasks]
    second: Tensor  # [tasks]
    steps: Tensor  # [tasks]

    def __init__(self, num_tasks: int, lr: float) -> None:
        super().__init__()
        self.lr = lr
        for name in ("first", "second", "steps"):
            self.register_buffer(name, torch.zeros(num_tasks, dtype=torch.float64))

    def step(
        self,
        values: Tensor,  # [tasks] of all tasks, changed in place
        gradient: Tensor,  # [present]
        tasks: Sequence[int],
    ) -> None:
        """Move the values of the present tasks against their gradient."""
        at, new = list(tasks), gradient.numpy()
        first, second, steps = self.first.numpy(), self.second.numpy(), self.steps.numpy()  # views
        # Moments with decays 0.9 and 0.999, then their bias-corrected values: Algorithm 1 of the paper.
        steps[at] += 1
        first[at] += 0.1 * (new - first[at])
        second[at] += 0.001 * (new**2 - second[at])
        mean = first[at] / (1 - 0.9 ** steps[at])
        spread = np.sqrt(second[at] / (1 - 0.999 ** steps[at]))
        # The usual 1e-8 relative to the gradient's own size: gradients of 1e-12 must move the values as well.
        values.numpy()[at] -= self.lr * mean / (spread + 1e-8 * np.maximum(np.abs(new), 1e-290))
