"""A batch with the task of every row, and the one context from which modules read which task owns a row."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a token that is not learnt: prompt and padding."""

MOST_RUNS = 16
"""Most runs of a task that are multiplied one by one: beyond, gathering its rows is cheaper."""


@dataclass(frozen=True)
class TaskBatch:
    """One micro-batch; the rows of one task are contiguous, or packed without padding between them.

    Attributes:
        input_ids: Token ids, padded on the right. `[batch, seq]`
        attention_mask: 1 for tokens, 0 for padding. `[batch, seq]`
        labels: Token ids to learn, `IGNORE_INDEX` elsewhere; not shifted. For a head that labels words, the class of
            each labelled word at its first token. `[batch, seq]`
        task_ids: Index of the task that owns each row `[batch]`, or each token of packed rows `[batch, seq]`.
        position_ids: Of packed rows: place of each token in its own row, 0 where a row begins. `[batch, seq]`
        targets: For heads that give one value per row: index of the class, or the number; NaN where a row has none.
            None where no task has such a head. `[batch]`, float32
    """

    input_ids: Tensor  # [batch, seq]
    attention_mask: Tensor  # [batch, seq]
    labels: Tensor  # [batch, seq]
    task_ids: Tensor  # [batch] or [batch, seq]
    position_ids: Tensor | None = None  # [batch, seq]
    targets: Tensor | None = None  # [batch]

    def num_rows(self, num_tasks: int) -> Tensor:  # -> [tasks]
        """Count the rows of each task, also of those packed behind each other.

        Args:
            num_tasks: Number of tasks, present or not.

        Returns:
            The counts. `[tasks]`, float64
        """
        ids = self.task_ids
        begins = torch.ones_like(ids)
        if ids.dim() == 2 and self.position_ids is not None:
            begins = (self.position_ids == 0) & (self.attention_mask > 0)
        found = torch.zeros(num_tasks, dtype=torch.float64, device=ids.device)
        return found.index_add_(0, ids.flatten(), begins.flatten().to(found))

    def to(self, device: torch.device | str) -> "TaskBatch":
        """Copy every tensor to `device`.

        Args:
            device: Where the tensors are wanted.

        Returns:
            The batch on that device.
        """
        moved: dict[str, Any] = {}
        for name, tensor in vars(self).items():
            moved[name] = None if tensor is None else tensor.to(device, non_blocking=True)
        return TaskBatch(**moved)


@dataclass(frozen=True)
class Segments:
    """The lookup from each task to its rows in a batch.

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
        """Cut tensors with the same leading shape into the rows of each task."""
        flat = [t.flatten(0, len(self.shape) - 1) for t in tensors]
        for task, rows in self.rows.items():
            yield task, tuple(t[rows] for t in flat)

    def pieces(self, *tensors: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:  # [*shape, ..., features]
        """Cut tensors like `split`, but without copying them: a task with several runs of rows comes once per run."""
        flat = [t.flatten(0, len(self.shape) - 1) for t in tensors]
        for task, rows in self.rows.items():
            for run in self.runs[task] or (rows,):
                yield task, tuple(t[run] for t in flat)

    def spread(self, values: Tensor) -> Tensor:  # [tasks] -> [*shape]
        """Expand values per task to values per row."""
        found = values.new_zeros(self.shape)
        for task, rows in self.rows.items():
            found.view(-1)[rows] = values[task]
        return found


def segments_of(ids: Tensor, num_tasks: int) -> Segments:  # [batch] or [batch, seq]
    """Find the rows of every task."""
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


# One plain stack for the whole process, not a context variable: on a GPU, backward (and with it the recomputation
# of checkpointed layers) runs on threads of autograd, which see no context variable of the caller.
_OPEN: list["_Rows"] = []
_CLOSED: list[tuple[weakref.ref[Tensor], int | None]] = []  # ids of the last one, and how long its rows were


class _Rows:
    """One open context: its ids, their segments once asked for, and the length of its rows once known."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids
        self.segments: dict[int, Segments] = {}
        self.length: int | None = None


@contextmanager
def task_rows(ids: Tensor) -> Iterator[None]:  # [batch] or [batch, seq]
    """Declare which task owns each row (or each token of packed rows) while the context is open.

    Keep it open from the forward to the end of the backward, so that recomputed layers see the same rows. A module
    that gathers or repeats rows opens an inner context with the gathered ids.

    Args:
        ids: Task index of each row `[batch]`, or of each token `[batch, seq]`.

    Yields:
        None; inside, `current_task_rows` returns `ids`.
    """
    rows = _Rows(ids)
    if _CLOSED and _CLOSED[0][0]() is ids:  # opened again for a second backward, in which no embedding runs
        rows.length = _CLOSED[0][1]
    _OPEN.append(rows)
    try:
        yield
    finally:
        _OPEN.pop()
        _CLOSED[:] = [(weakref.ref(ids), rows.length)]


def current_task_rows() -> Tensor | None:
    """Return the task that owns each row.

    Returns:
        The ids of the innermost open `task_rows` context, `[batch]` or `[batch, seq]`; None outside any.
    """
    return _OPEN[-1].ids if _OPEN else None


def current_segments(num_tasks: int) -> Segments | None:
    """Return the rows of each task, found once per context for all modules that ask.

    A `ValueError` says when the ids are no task indices below `num_tasks`.
    """
    if not _OPEN:
        return None
    known = _OPEN[-1].segments
    if num_tasks not in known:
        known[num_tasks] = segments_of(_OPEN[-1].ids, num_tasks)
    return known[num_tasks]


def note_row_length(x: Tensor) -> None:  # [batch, seq, ...]
    """Remember how many tokens a row has while the innermost `task_rows` context is open."""
    if _OPEN and x.dim() > 1 and x.shape[:1] == _OPEN[-1].ids.shape[:1]:
        _OPEN[-1].length = x.shape[1]


def unflatten_rows(x: Tensor) -> Tensor | None:  # [batch * seq, dim] -> [batch, seq, dim]
    """Restore the batch dimension of an input that was flattened to tokens, as OPT flattens it."""
    if not _OPEN or x.dim() != 2:
        return None
    ids, length = _OPEN[-1].ids, _OPEN[-1].length
    shape = ids.shape if ids.dim() > 1 else (ids.shape[0], length or 1)
    if x.shape[0] == ids.shape[0] or x.shape[0] != shape[0] * shape[1]:
        return None
    return x.unflatten(0, shape)
