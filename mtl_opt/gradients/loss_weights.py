"""Weighted losses for engines that sum gradients themselves, such as DeepSpeed: no gradient per task."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from mtl_opt.gradients.checks import check_losses, checked_counts, checked_tasks
from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.step.combiner_input import CombinerLike, fill_absent


class LossWeights:
    """Turn the losses of all tasks into the one scalar that such an engine differentiates.

    ```
    weigh = LossWeights(UncertaintyWeighting(), tasks)
    engine.backward(weigh(losses, counts))
    engine.step()
    weigh.step()
    ```

    The weights are those that the combiner gives for the losses of the step *before* (in the first step, of its first
    micro-batch): they are then the same in all processes. Nothing is measured of the gradients.

    Args:
        combiner: A combiner that requires losses only.
        tasks: Names of the tasks.
        process_group: Processes whose gradients the engine averages; default all.

    Raises:
        ValueError: If the combiner requires more than losses.
    """

    def __init__(self, combiner: CombinerLike, tasks: Sequence[str], process_group: ProcessGroup | None = None) -> None:
        if combiner.requires != "losses":
            raise ValueError(
                f"`{type(combiner).__name__}` requires `{combiner.requires}`, but an engine that sums gradients itself "
                "gives losses only; use a combiner that requires losses, or `TaskGradients` without that engine."
            )
        self.tasks = checked_tasks(tasks)
        self.combiner = combiner
        combiner.bind(self.tasks)
        self.processes = Processes(process_group)
        self.weights: Tensor | None = None  # [tasks]
        self._sums: Tensor | None = None  # [2, tasks]: counts times losses, counts

    def __call__(self, losses: Tensor, counts: Tensor | None = None) -> Tensor:  # [tasks], [tasks] -> []
        """Weigh the losses of one micro-batch.

        Args:
            losses: Mean loss of every task in this process; the value of an absent task is ignored. `[tasks]`
            counts: What each loss averages, 0 for an absent task; default 1. `[tasks]`

        Returns:
            A scalar; the mean of its gradient over the processes is that of the weighted sum of the losses over the
            rows of all of them. `[]`
        """
        check_losses(losses, self.tasks)
        given = torch.ones_like(losses) if counts is None else counts
        mine = checked_counts(given, losses, self.tasks)
        sums = torch.stack([torch.where(mine > 0, losses.detach() * mine, 0), mine])
        everyone = self.processes.sum(sums)
        self._sums = everyone if self._sums is None else self._sums + everyone
        if self.weights is None:
            self.weights = self._ask()
        share = self.processes.world * mine / everyone[1].clamp(min=1)
        return torch.where(mine > 0, losses * (self.weights.to(share) * share).to(losses.dtype), 0).sum()

    def step(self) -> Tensor:  # -> [tasks]
        """Close the step: the next one takes the weights for the mean losses of this one.

        Returns:
            The weights of the next step, 0 for tasks that were absent in this one. `[tasks]`

        Raises:
            ValueError: If there was no micro-batch.
        """
        if self._sums is None:
            raise ValueError("There are no losses to weigh: call the object with losses first.")
        self.weights, self._sums = self._ask(), None
        return self.weights

    def _ask(self) -> Tensor:  # -> [tasks]
        """Ask the combiner for the weights of the tasks seen so far in this step."""
        assert self._sums is not None
        present = [task for task, count in enumerate(self._sums[1].tolist()) if count > 0]
        means = self._sums[0][present] / self._sums[1][present]
        return fill_absent(self.combiner.weights(None, means, tasks=present), present, len(self.tasks))
