"""The sampler: which rows come in which step, for all processes together; it resumes at the exact row."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_opt.data.mixing.base import Facts, Mixer, normalised
from mtl_opt.data.mixing.fixed import Balanced
from mtl_opt.data.mixing.paced_rows import PacedRows
from mtl_opt.data.mixing.quota import Quota
from mtl_opt.data.mixing.row_order import RowOrder
from mtl_opt.errors import InputError


class Sampler:
    """Draw the micro-batches of all processes together.

    Each task goes through a new permutation of its rows in each of its own epochs, so small tasks start over while
    large ones are still in their first epoch. A permutation depends on seed, task name and epoch only: adding a task
    changes no other task's order, and the state of a task is one number. The mixing decides how many rows each task
    gets; a draw always has `rows_per_task * tasks * processes` rows.

    Args:
        sizes: Number of rows of each task; None for a stream, whose rows are numbered without end.
        rows_per_task: Rows per task and process in one draw, on average over the tasks.
        seed: Seed of the permutations.
        mixer: Decides how tasks share the rows; None for the same number of every task.
        processes: Number of processes that share a draw.
        draws_per_step: Draws per optimizer step; shares change only between steps.
        tasks_per_step: Largest number of tasks in one step; None for all.
        orders: Order of the rows of each task; None for plain permutations.
        limits: Number of rows after which each task leaves the mix; None for never.

    Raises:
        InputError: If there is no task, a task has no rows, or a number is below 1.
    """

    def __init__(
        self,
        sizes: Mapping[str, int | None],
        rows_per_task: int,
        seed: int,
        mixer: Mixer | None = None,
        *,
        processes: int = 1,
        draws_per_step: int = 1,
        tasks_per_step: int | None = None,
        orders: Mapping[str, RowOrder | PacedRows] | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        if not sizes:
            raise InputError("`sizes` is empty; at least one task is needed.")
        for task, size in sizes.items():
            if size is not None and size < 1:
                raise InputError(f"Task `{task}` has no rows to draw from.")
        if tasks_per_step is not None and limits is not None:
            raise InputError("`tasks_per_step` and `exhaustion: once` do not go together: the last rows must be drawn.")
        if rows_per_task < 1:
            raise InputError(f"`rows_per_task` must be at least 1, got {rows_per_task}.")
        self.sizes = dict(sizes)
        self.rows_per_task = rows_per_task
        self.seed = seed
        self.mixer = mixer or Balanced(Facts(sizes))
        self.rows_per_draw = rows_per_task * len(self.sizes) * processes
        self.draws_per_step = draws_per_step
        self.tasks_per_step = None if tasks_per_step is None else min(tasks_per_step, len(self.sizes))
        self.orders: dict[str, RowOrder | PacedRows] = dict(
            orders or {task: RowOrder(task, size, seed) for task, size in sizes.items()}
        )
        self.limits = None if limits is None else dict(limits)
        self.quota = Quota(len(self.sizes))
        self.drawn = dict.fromkeys(self.sizes, 0)
        self.draws = 0
        self.current: list[float] = []  # shares of the current step
        self.step_shares: list[float] | None = None  # the same under `tasks_per_step`
        self.step_quota = Quota(len(self.sizes))
        self.permutations: dict[
            str, tuple[int, Sequence[int]]
        ] = {}  # per task: its epoch, and the permutation of that epoch

    def draw(self) -> dict[str, list[int]]:
        """Draw the next micro-batch of all processes.

        Returns:
            Row indices per task; empty for a task that is absent. A draw may straddle two epochs of a task, and repeats
            a task that has fewer rows than are drawn.
        """
        counts = self.counts()
        return {task: [self.next_row(task) for _ in range(count)] for task, count in counts.items()}

    def skip(self) -> dict[str, int]:
        """Skip one draw, without looking up its rows.

        Returns:
            Number of rows of every task in it.
        """
        counts = self.counts()
        for task, count in counts.items():
            self.drawn[task] += count
        return counts

    def counts(self) -> dict[str, int]:
        """Advance by one draw, and return its number of rows of each task."""
        first = self.draws % self.draws_per_step == 0
        if first or not self.current:
            self.current = self.mixer.shares(self.draws // self.draws_per_step)
        for task, order in self.orders.items():
            if isinstance(order, PacedRows):
                order.open(self.drawn[task], self.draws // self.draws_per_step)
        self.draws += 1
        if isinstance(self.mixer, Balanced) and self.tasks_per_step is None and self.limits is None:
            return dict.fromkeys(self.sizes, self.rows_per_draw // len(self.sizes))
        if self.tasks_per_step is not None and self.limits is None:
            counts = self._counts_of_few_tasks(first)
        else:
            counts = self._limited_counts(self._shares_of_tasks_left(self.current))
        return dict(zip(self.sizes, counts, strict=True))

    def _counts_of_few_tasks(self, first: bool) -> list[int]:
        """Divide the rows of a whole step among at most `tasks_per_step` tasks, then evenly over its draws."""
        if first or self.step_shares is None:
            whole = self.quota.take(self.current, self.rows_per_draw * self.draws_per_step, self.tasks_per_step)
            self.step_shares, self.step_quota = normalised(whole), Quota(len(whole))
        return self.step_quota.take(self.step_shares, self.rows_per_draw)

    def _left(self, task: str) -> int | None:
        """Count the rows that a task has left; None without limits."""
        return None if self.limits is None else max(0, self.limits[task] - self.drawn[task])

    def _shares_of_tasks_left(self, shares: Sequence[float]) -> list[float]:
        """Distribute the shares of tasks that have left the mix to the others; all zeros where none is left."""
        if self.limits is None:
            return list(shares)
        kept = [share if self._left(task) else 0.0 for task, share in zip(self.sizes, shares, strict=True)]
        if not any(kept):  # the remaining tasks have no share of their own
            kept = [1.0 if self._left(task) else 0.0 for task in self.sizes]
        return normalised(kept) if any(kept) else kept

    def _limited_counts(self, shares: Sequence[float]) -> list[int]:
        """Round shares to rows, with no task above the rows it has left."""
        if self.limits is None:
            return self.quota.take(shares, self.rows_per_draw)
        counts = [0] * len(self.sizes)
        left = {number: self._left(task) or 0 for number, task in enumerate(self.sizes)}
        rows = min(self.rows_per_draw, sum(left.values()))
        while rows:
            able = [share if left[task] else 0.0 for task, share in enumerate(shares)]
            able = able if any(able) else [float(bool(left[task])) for task in range(len(shares))]
            for task, count in enumerate(self.quota.take(normalised(able), rows)):
                given = min(count, left[task])
                counts[task] += given
                left[task] -= given
                rows -= given
        return counts

    def next_row(self, task: str) -> int:
        """Draw the next row of a task.

        Args:
            task: Name of the task.

        Returns:
            Index of the row within the task.
        """
        size, order = self.sizes[task], self.orders[task]
        if isinstance(order, PacedRows):
            self.drawn[task] += 1
            return order.row(self.drawn[task] - 1)
        epoch, position = (0, self.drawn[task]) if size is None else divmod(self.drawn[task], size)
        self.drawn[task] += 1
        if size is None:
            return position
        if task not in self.permutations or self.permutations[task][0] != epoch:
            self.permutations[task] = (epoch, order.permutation(epoch))
        return self.permutations[task][1][position]

    def observe(self, losses: Mapping[str, float], step: int) -> None:
        """Pass the losses of a step on to the mixing.

        Args:
            losses: Mean loss of every task that was present, in nats.
            step: Number of the step, from 0.
        """
        self.mixer.observe(losses, step)

    def epochs(self) -> dict[str, float]:
        """Count the passes through each task.

        Returns:
            Passes through each task's rows so far, with fractions; 0 for a stream, whose length is unknown.
        """
        return {task: self.drawn[task] / size if size else 0.0 for task, size in self.sizes.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the sampler, as JSON values."""
        paced = {task: order for task, order in self.orders.items() if isinstance(order, PacedRows)}
        opened = {task: [list(pair) for pair in order.opened] for task, order in paced.items()}
        return {
            **({"opened": opened} if opened else {}),
            "seed": self.seed,
            "sizes": dict(self.sizes),
            "drawn": dict(self.drawn),
            "draws": self.draws,
            "owed": list(self.quota.owed),
            "mixer": self.mixer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the exact row that would have come next.

        Args:
            state: What `state_dict` returned between two steps; `rows_per_task` may have changed since.

        Raises:
            InputError: If the state belongs to other tasks, sizes, seed or mixing.
        """
        for key, own in (("sizes", self.sizes), ("seed", self.seed)):
            if state.get(key) != own:
                raise InputError(f"The sampler's saved `{key}` {state.get(key)} do not fit those of the data, {own}.")
        drawn = state.get("drawn")
        if not isinstance(drawn, Mapping) or set(drawn) != set(self.sizes) or min(drawn.values()) < 0:
            raise InputError(f"The sampler's saved `drawn` must give a count of rows for every task, got {drawn}.")
        self.drawn = {task: int(drawn[task]) for task in self.sizes}
        # A checkpoint of a release without mixings knows neither: it drew the same number of rows of every task.
        before = sum(self.drawn.values()) // self.rows_per_draw
        self.draws = int(state.get("draws", before))
        self.quota.owed = [float(owed) for owed in state.get("owed", [0.0] * len(self.sizes))]
        self.current, self.step_shares = [], None
        for task, order in self.orders.items():
            if isinstance(order, PacedRows):
                if task not in state.get("opened", {}):
                    raise InputError(f"The sampler's saved `opened` says nothing of task `{task}`.")
                order.load(state["opened"][task])
        try:
            self.mixer.load_state_dict(state.get("mixer", {}))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The sampler's saved state of the mixing does not fit: {error!r}.") from error


def rank_slice(draw: Mapping[str, Sequence[int]], rank: int, world: int) -> dict[str, list[int]]:
    """Select one process's part of the rows of every task.

    Every process gets consecutive rows. Where a task's rows do not divide evenly, the processes that get one more are
    dealt round-robin from task to task, so that the totals of all processes differ by at most one row. Together the
    parts are exactly the draw.

    Args:
        draw: Row indices of every task, for all processes together.
        rank: Number of the process, from 0.
        world: Number of processes.

    Returns:
        Row indices of every task for this process.
    """
    found, dealt = {}, 0
    for task, rows in draw.items():
        whole, more = divmod(len(rows), world)
        extra = {(dealt + i) % world for i in range(more)}
        dealt += more
        begin = rank * whole + sum(1 for other in extra if other < rank)
        found[task] = list(rows[begin : begin + whole + (rank in extra)])
    return found
