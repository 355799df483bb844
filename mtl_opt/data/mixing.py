"""Which rows come in which step: a fixed number of every task, drawn so that a resumed run goes on unchanged."""

import random
from collections.abc import Mapping
from typing import Any

from mtl_opt.errors import InputError


class BalancedSampler:
    """Draw micro-batches with the same number of rows of every task.

    Each task runs through a fresh permutation of its rows in each of its own epochs, so small tasks start over while
    large ones are still in their first epoch. A permutation depends on seed, task name and epoch alone: adding a task
    changes no other task's order, and the whole state is one number per task.

    Args:
        sizes: Number of rows of each task.
        rows_per_task: Rows of each task in one draw.
        seed: Decides the permutations.

    Raises:
        InputError: If there is no task, a task has no rows, or `rows_per_task` is below 1.
    """

    def __init__(self, sizes: Mapping[str, int], rows_per_task: int, seed: int) -> None:
        if not sizes:
            raise InputError("`sizes` is empty; at least one task is needed.")
        for task, size in sizes.items():
            if size < 1:
                raise InputError(f"Task `{task}` has no rows to draw from.")
        if rows_per_task < 1:
            raise InputError(f"`rows_per_task` must be at least 1, got {rows_per_task}.")
        self.sizes = dict(sizes)
        self.rows_per_task = rows_per_task
        self.seed = seed
        self.drawn = dict.fromkeys(self.sizes, 0)
        self.permutations: dict[str, tuple[int, list[int]]] = {}  # task: its epoch and the order of rows in it

    def draw(self) -> dict[str, list[int]]:
        """Draw the next micro-batch.

        Returns:
            Row indices per task, `rows_per_task` each. A draw may straddle two epochs of a task, and a task with fewer
            rows than that is repeated within it.
        """
        return {task: [self.next_row(task) for _ in range(self.rows_per_task)] for task in self.sizes}

    def next_row(self, task: str) -> int:
        """Draw one row.

        Args:
            task: Whose row.

        Returns:
            The index of the row.
        """
        epoch, position = divmod(self.drawn[task], self.sizes[task])
        if task not in self.permutations or self.permutations[task][0] != epoch:
            self.permutations[task] = (epoch, self.permutation(task, epoch))
        self.drawn[task] += 1
        return self.permutations[task][1][position]

    def permutation(self, task: str, epoch: int) -> list[int]:
        """Shuffle the rows of a task for one epoch.

        Args:
            task: Whose rows.
            epoch: Number of the task's epoch, from 0.

        Returns:
            All row indices of the task.
        """
        order = list(range(self.sizes[task]))
        # Seeding with a text hashes it by SHA-512: the same in every process, unlike hash().
        random.Random(f"{self.seed}/{epoch}/{task}").shuffle(order)
        return order

    def epochs(self) -> dict[str, float]:
        """Tell how often each task has been seen.

        Returns:
            Passes through each task's rows so far.
        """
        return {task: self.drawn[task] / size for task, size in self.sizes.items()}

    def state_dict(self) -> dict[str, Any]:
        """Describe where the sampler stands, in plain values that JSON can hold.

        Returns:
            What `load_state_dict` takes.
        """
        return {"seed": self.seed, "sizes": dict(self.sizes), "drawn": dict(self.drawn)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the very row that would have come next.

        Args:
            state: What `state_dict` gave; `rows_per_task` may have changed since.

        Raises:
            InputError: If the state is of other tasks, sizes or seed.
        """
        for key, own in (("sizes", self.sizes), ("seed", self.seed)):
            if state.get(key) != own:
                raise InputError(f"The sampler's saved `{key}` {state.get(key)} do not fit those of the data, {own}.")
        drawn = state.get("drawn")
        if not isinstance(drawn, Mapping) or set(drawn) != set(self.sizes) or min(drawn.values()) < 0:
            raise InputError(f"The sampler's saved `drawn` must give a count of rows for every task, got {drawn}.")
        self.drawn = {task: int(drawn[task]) for task in self.sizes}
