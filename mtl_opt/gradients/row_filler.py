"""From losses to rows of the Jacobian: the owner of each row of a batch, and the backward that fills the buffer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite

import torch
from torch import Tensor

from mtl_opt.batch import Segments, segments_of, task_rows
from mtl_opt.gradients.checks import check_no_gradient, checked_counts
from mtl_opt.gradients.engines.choice import Engine
from mtl_opt.gradients.layers.open_segments import OpenSegments
from mtl_opt.gradients.step.half_split import HalfSplit
from mtl_opt.gradients.step.loss_roots import Losses, LossRoots, read_losses
from mtl_opt.gradients.step.step import Step


class RowFiller:
    """Fill the rows of a step, micro-batch by micro-batch.

    Args:
        engine: Differentiates the losses.
        open_rows: Looks up which rows of a batch go to each row of the buffer.
        halves: Deals rows to halves; None where no combiner needs them.
        verify: Check in the first step that no task's loss depends on rows of another (engines that wire layers).
        counts_rows: Whether the number of rows must be known, so that packed rows cannot come without it.

    Attributes:
        owners: Row of the buffer that each open row goes to; None outside `rows`. `[batch]` or `[batch, seq]`
    """

    def __init__(
        self, engine: Engine, open_rows: OpenSegments, halves: HalfSplit | None, verify: bool, counts_rows: bool
    ) -> None:
        self.engine = engine
        self.open_rows = open_rows
        self.halves = halves
        self.owners: Tensor | None = None
        self._segments: Segments | None = None
        self._num_rows: Tensor | None = None
        self._verify = verify
        self._counts_rows = counts_rows

    @contextmanager
    def rows(self, ids: Tensor, num_rows: Tensor | None) -> Iterator[None]:  # [batch] or [batch, seq], [tasks]
        """Declare the owner of each row of the batch from the forward to the end of the backward."""
        if ids.dim() == 2 and num_rows is None and self._counts_rows:
            raise ValueError("`loss_reduction='rows'` counts rows, and `ids` per token do not tell: give `num_rows`.")
        before = self.owners, self._segments, self._num_rows
        try:
            with task_rows(ids), self.engine.open():
                self.owners = ids if self.halves is None else self.halves.owners(ids)
                self._segments = self.open_rows.register(ids, segments_of(self.owners, self.open_rows.num_rows))
                self._num_rows = num_rows
                yield
        finally:
            self.owners, self._segments, self._num_rows = before
            self.open_rows.forget()  # rows of an outer context are looked up again

    @property
    def is_open(self) -> bool:
        """Whether rows are open."""
        return self._segments is not None

    def open_owners(self) -> Tensor:  # -> [batch] or [batch, seq]
        """Return the row of the buffer that each open row goes to."""
        if self.owners is None:
            raise ValueError("No rows are open; ask inside `with grads.rows(ids):`.")
        return self.owners

    def backward(self, step: Step, losses: Losses, counts: Tensor | None) -> None:  # [tasks], [tasks]
        """Add `counts · ∇losses` to the rows: means over the step need one division, whatever the micro-batches."""
        found = read_losses(losses, step.tasks, halves=self.halves is not None)
        self._check(step)
        names = tuple(step.tasks) * (1 if self.halves is None else 2)
        counts = self._checked_counts(found, counts, step.tasks)
        present = [row for row, count in enumerate(self.engine.agreed_counts(counts).tolist()) if count > 0]
        if not present:
            return
        step.add(counts, (found.values * counts).detach(), self._rows_of(len(step.tasks), counts))
        scaled = found.scaled(counts if step.scaler is None else counts * step.scaler.scale)
        # With one task in the batch there is nothing to mix: wait for one with more.
        if self._verify and len(present) > 1:
            self.engine.verify(scaled, present, names)
            self._verify = False
        self.engine.backward(scaled, present)

    def _checked_counts(self, losses: LossRoots, counts: Tensor | None, tasks: Sequence[str]) -> Tensor:  # -> [rows]
        """Return the counts, by default 1 for every loss that is given and has rows, or raise for one that is not."""
        filled = self._segments.rows if self._segments else range(len(losses.given))
        values = losses.values.tolist()
        if counts is None:
            # Of an engine that needs no rows a loss may be of any rows: one that is not 0 is there.
            rows = [row in filled or (not self.engine.wires and value != 0) for row, value in enumerate(values)]
            ones = [float(given and there) for given, there in zip(losses.given, rows, strict=True)]
            counts = torch.tensor(ones, device=losses.values.device)
        counts = counts.flatten() if self.halves is not None else counts
        counts = checked_counts(counts, losses.values, tasks)
        numbers = zip(losses.given, counts.tolist(), values, strict=True)
        for row, (given, count, value) in enumerate(numbers):
            task = tasks[row % len(tasks)]
            if self.engine.wires and row not in filled and given and value != 0 and isfinite(value):
                raise ValueError(
                    f"The loss of task `{task}` is {value:.4g}, and no row of the batch is the task's: engine "
                    f"`{self.engine.name}` tells tasks apart by their rows. Several losses on the same rows: "
                    "engine='per_task', and no `rows`."
                )
            if count > 0 and not given:
                raise ValueError(f"The loss of task `{task}` is None, and its count is {count:g}.")
            if count == 0 and not losses.apart and not isfinite(value):
                raise ValueError(
                    f"The loss of task `{task}`, which is absent, is {value}, and is computed together with those of "
                    "the others, whose gradients it would spoil: divide by at least 1, or give the losses one by one."
                )
        return counts

    def _rows_of(self, num_tasks: int, counts: Tensor) -> Tensor:  # [rows] -> [tasks]
        """Count the rows of each task in the batch; without open rows every loss is of the same ones."""
        if self._num_rows is not None:
            return self._num_rows
        if self._segments is None:
            return (counts > 0).to(counts)
        found = [0.0] * self.open_rows.num_rows
        for owner, rows in self._segments.rows.items():
            found[owner] = len(rows) if isinstance(rows, Tensor) else rows.stop - rows.start
        return torch.tensor(found, dtype=torch.float64).view(-1, num_tasks).sum(0)

    def _check(self, step: Step) -> None:
        """Raise for losses that would mix steps, rows or tasks."""
        if self._segments is None and (self.engine.wires or self.halves is not None):
            raise ValueError(
                "Call `backward` inside `with grads.rows(ids):`, which says whose rows these are; several losses on "
                "the same rows: engine='per_task'."
            )
        if step.closed:
            raise ValueError("This step is closed (its rows were read); call `grads.zero()` before the next one.")
        check_no_gradient(step.buffer.parameters)
