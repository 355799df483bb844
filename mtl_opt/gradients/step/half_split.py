"""Two independent halves of every task's rows, for methods that need two estimates of the same gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_opt.gradients.processes import Processes


class HalfSplit:
    """Deal the rows of a step to two halves: a task's first row to one, its second to the other, and so on.

    The position counts over all micro-batches and processes of a step, so that k micro-batches on P processes are
    split like one large batch.

    Args:
        num_tasks: Number of tasks.
        processes: The processes that have rows of the same step.
    """

    def __init__(self, num_tasks: int, processes: Processes) -> None:
        self.num_tasks = num_tasks
        self.processes = processes
        self.seen = torch.zeros(num_tasks, dtype=torch.int64)  # rows of the step so far, of all processes

    def owners(self, ids: Tensor) -> Tensor:  # [batch] -> [batch]
        """Find the row of the buffer that each row of a micro-batch belongs to."""
        if ids.dim() != 1:
            raise ValueError(f"`ids` must be [batch] where halves are wanted, got shape {tuple(ids.shape)}.")
        tasks = ids.detach().cpu()
        mine = torch.bincount(tasks, minlength=self.num_tasks)
        everyone = self.processes.gather(mine.to(ids.device)).cpu()  # [processes, tasks]
        # Position of each row among all rows of its task in the step: those seen before, those of lower ranks, and
        # those above it in this micro-batch. Its parity is the half.
        before = self.seen + everyone[: self.processes.rank].sum(0)
        belongs = torch.nn.functional.one_hot(tasks, self.num_tasks)
        position = before[tasks] + (belongs.cumsum(0) - 1).gather(1, tasks[:, None]).squeeze(1)
        self.seen = self.seen + everyone.sum(0)
        return ids + self.num_tasks * (position % 2).to(ids)

    def check(self, totals: Tensor, tasks: Sequence[str]) -> None:  # [2 * tasks]
        """Raise if a task has rows in one half only."""
        for task, (first, second) in zip(tasks, totals.view(2, -1).T.tolist(), strict=True):
            if (first > 0) != (second > 0):
                raise ValueError(
                    f"Task `{task}` has labels in one half of its rows only; halves need at least two rows of every "
                    "present task in a step."
                )

    def restart(self) -> None:
        """Start the next step."""
        self.seen.zero_()
