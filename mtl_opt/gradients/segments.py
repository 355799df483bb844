"""Which rows of a layer's input belong to which task."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_opt.batch import current_task_rows

MOST_RUNS = 16
"""From how many runs of a task on its rows are gathered: a product per run then costs more than the copy."""


@dataclass(frozen=True)
class Segments:
    """Hold the rows of every task in a batch.

    Attributes:
        rows: Rows of each task that is present: a slice where they are contiguous, else their indices.
        runs: The same as slices, one per contiguous run; empty for a task with more than `MOST_RUNS` of them.
        shape: Leading shape of a layer input that fits: `[batch]`, or `[batch, seq]` when every token has an id.
        equal: True when all tasks are present, in order, each with the same number of contiguous rows.
    """

    rows: dict[int, slice | Tensor]
    runs: dict[int, tuple[slice, ...]]
    shape: torch.Size
    equal: bool

    def split(self, *tensors: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:  # [*shape, ..., features]
        """Cut tensors with the same leading shape into the rows of each task.

        Args:
            tensors: Inputs or gradients of a layer. `[*shape, ...]`

        Yields:
            A task and its rows of every tensor. `[rows, ...]`
        """
        flat = [t.flatten(0, len(self.shape) - 1) for t in tensors]
        for task, rows in self.rows.items():
            yield task, tuple(t[rows] for t in flat)

    def pieces(self, *tensors: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:  # [*shape, ..., features]
        """Cut tensors like `split`, but without copying them: a task with several runs of rows comes once per run.

        Args:
            tensors: Inputs or gradients of a layer. `[*shape, ...]`

        Yields:
            A task and some of its rows of every tensor. `[rows, ...]`
        """
        flat = [t.flatten(0, len(self.shape) - 1) for t in tensors]
        for task, rows in self.rows.items():
            for run in self.runs[task] or (rows,):
                yield task, tuple(t[run] for t in flat)

    def spread(self, values: Tensor) -> Tensor:  # [tasks] -> [*shape]
        """Give every row the value of its task.

        Args:
            values: One value per task. `[tasks]`

        Returns:
            One value per row. `[*shape]`
        """
        found = values.new_zeros(self.shape)
        for task, rows in self.rows.items():
            found.view(-1)[rows] = values[task]
        return found


def segments_of(ids: Tensor, num_tasks: int) -> Segments:  # [batch] or [batch, seq]
    """Find the rows of every task.

    Args:
        ids: Task index of each row, or of each token of packed rows. `[batch]` or `[batch, seq]`
        num_tasks: Number of tasks.

    Returns:
        The rows of each present task.

    Raises:
        ValueError: If `ids` is no batch of task indices below `num_tasks`.
    """
    if ids.dim() not in {1, 2} or ids.is_floating_point() or ids.numel() == 0:
        raise ValueError(f"`ids` must be integers [batch] or [batch, seq], got {ids.dtype} {tuple(ids.shape)}.")
    flat = ids.detach().flatten().cpu()
    if bool(flat.min() < 0) or bool(flat.max() >= num_tasks):
        worst = int(flat.min()) if bool(flat.min() < 0) else int(flat.max())
        raise ValueError(f"`ids` must be task indices from 0 to {num_tasks - 1}, got {worst}.")
    rows: dict[int, slice | Tensor] = {}
    runs = _runs(flat)
    for task, found in runs.items():
        alone = len(found) == 1
        rows[task] = found[0] if alone else (flat == task).nonzero().flatten().to(ids.device)
        runs[task] = found if len(found) <= MOST_RUNS else ()
    size = flat.numel() // num_tasks
    equal = size * num_tasks == flat.numel() and bool((flat == torch.arange(num_tasks).repeat_interleave(size)).all())
    return Segments(rows, runs, ids.shape, equal)


def _runs(flat: Tensor) -> dict[int, tuple[slice, ...]]:  # [rows]
    """Find the contiguous runs of every task that is present, in task order."""
    tasks, lengths = flat.unique_consecutive(return_counts=True)
    found: dict[int, list[slice]] = {task: [] for task in sorted(set(tasks.tolist()))}
    begin = 0
    for task, length in zip(tasks.tolist(), lengths.tolist(), strict=True):
        found[task].append(slice(begin, begin + length))
        begin += length
    return {task: tuple(slices) for task, slices in found.items()}


class OpenSegments:
    """Give the segments of the innermost open `task_rows` context, found once for all layers that run in it.

    Args:
        num_rows: Number of rows of the buffer: one per task, or two where each task's rows are dealt to halves.
        halves: Whether they are.
    """

    def __init__(self, num_rows: int, halves: bool = False) -> None:
        self.num_rows = num_rows
        self.halves = halves
        self._known: dict[int, tuple[Tensor, Segments]] = {}  # by identity; the ids are held so that it stays theirs

    def announce(self, ids: Tensor, owners: Tensor) -> Segments:  # [batch] or [batch, seq]
        """Say which row of the buffer each row of the batch goes to, for layers that run under these ids.

        Args:
            ids: Task indices, as `task_rows` was given them. `[batch]` or `[batch, seq]`
            owners: Rows of the buffer. `[batch]` or `[batch, seq]`

        Returns:
            The rows of the batch that belong to each row of the buffer.
        """
        return self.announce_again(ids, segments_of(owners, self.num_rows))

    def announce_again(self, ids: Tensor, segments: Segments) -> Segments:  # [batch] or [batch, seq]
        """Say it of rows that were open before.

        Args:
            ids: Task indices, as `task_rows` was given them. `[batch]` or `[batch, seq]`
            segments: What `announce` gave.

        Returns:
            The same segments.
        """
        self._known[id(ids)] = (ids, segments)
        return segments

    def current(self) -> Segments:
        """Find the rows of every task for a layer that runs now.

        Returns:
            The rows of each present task.

        Raises:
            ValueError: If a module has gathered rows, so that nobody knows their halves.
        """
        ids = current_task_rows()
        assert ids is not None
        if id(ids) in self._known:
            return self._known[id(ids)][1]
        if self.halves:
            raise ValueError(
                "A module opened a context of its own for gathered rows, and halves cannot follow them; use a "
                "combiner that needs no halves."
            )
        return self.announce(ids, ids)

    def forget(self) -> None:
        """Let go of the ids of a finished batch."""
        self._known.clear()
