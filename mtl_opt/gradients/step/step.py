"""The current step, from the first micro-batch to the gradient in `.grad`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_opt.gradients.checks import check_penalty, rows_untouched
from mtl_opt.gradients.rows.gradient_rows import GradientRows
from mtl_opt.gradients.rows.shards import local_shard
from mtl_opt.gradients.step.half_split import HalfSplit
from mtl_opt.gradients.step.loss_scaler import LossScaler
from mtl_opt.gradients.step.private_gradients import PrivateGradients


class Step:
    """Accumulate counts and losses of a step, and close it: sums of counts·gradients become mean gradients.

    `[rows]` below is one number per task, or two where rows are dealt to halves.

    Args:
        tasks: Names of the tasks.
        buffer: The rows.
        private: Gradients of private parameters.
        halves: How rows are dealt to halves; None where they are not.
        scaler: What losses were scaled with.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        buffer: GradientRows,
        private: PrivateGradients,
        halves: HalfSplit | None,
        scaler: LossScaler | None,
    ) -> None:
        self.tasks = tasks
        self.buffer = buffer
        self.private = private
        self.halves = halves
        self.scaler = scaler
        self.totals: Tensor | None = None  # [rows], counts so far; None before the first backward
        self.sums: Tensor | None = None  # [rows], counts times losses
        self.counts = self.losses = torch.empty(0)  # [tasks], once closed
        self.present: list[int] = []
        self.closed = self.written = False
        self.two_sample: Tensor | None = None  # [tasks, tasks]
        self.penalty: Tensor | None = None  # [params]
        self._gramian: Tensor | None = None  # [tasks, tasks]

    def add(self, counts: Tensor, sums: Tensor) -> None:  # [rows], [rows]
        """Add the counts and losses of a micro-batch."""
        if self.totals is None or self.sums is None:
            self.totals = self.sums = torch.zeros_like(counts)
        self.totals = self.totals + counts
        self.sums = self.sums + torch.where(counts > 0, sums, 0)

    def close(self) -> "Step":
        """Sum over the processes and divide every row by its task's total, once."""
        if self.closed:
            return self
        # Row t holds Σ counts·∇loss over micro-batches and processes: one division by its total gives the mean, so
        # that k micro-batches on P processes equal one large batch. The loss scale cancels in the same division.
        totals = self._count()
        factor = self.scaler.scale if self.scaler else 1.0
        self.buffer.sum_over_processes()
        if self.halves is not None:
            self.halves.check(totals, self.tasks)
            self.two_sample = self.buffer.two_sample(totals * factor)
        self.buffer.divide(self.counts * factor)
        self.private.sum_over(self.buffer.processes, self.present)
        self.private.divide(self.counts * factor, self.present)
        self.closed = True
        return self

    def _count(self) -> Tensor:  # -> [rows]
        """Sum counts and losses over the processes; find the present tasks."""
        processes, size = self.buffer.processes, len(self.tasks)
        if self.totals is None or self.sums is None:  # this process saw no rows, but others may
            rows = size * (2 if self.halves else 1)
            self.totals = self.sums = torch.zeros(rows, dtype=torch.float64, device=self.buffer.columns.device)
        self.totals, self.sums = processes.sum(torch.stack([self.totals, self.sums])).unbind()
        if not bool(self.totals.any()):
            raise ValueError("There are no rows to read: call `grads.backward(losses)` first.")
        self.counts = self.totals.view(-1, size).sum(0)
        self.losses = self.sums.view(-1, size).sum(0) / self.counts
        self.present = [task for task, total in enumerate(self.counts.tolist()) if total > 0]
        return self.totals

    def gramian(self) -> Tensor:  # [tasks, tasks]
        """Compute the inner products of the rows, once."""
        if self._gramian is None:
            self._gramian = self.close().buffer.gramian()
        return self._gramian

    def two_sample_gramian(self) -> Tensor:  # -> [tasks, tasks]
        """Return the inner products between the two halves' mean gradients."""
        product = self.close().two_sample
        if product is None:
            raise ValueError("There is no two-sample Gramian without `TaskGradients(..., halves=True)`.")
        return product

    def add_penalty(self, term: Tensor) -> None:  # []
        """Store the gradient of a term on parameters until the tasks' gradients are combined."""
        check_penalty(term, self.written)
        shared = list(self.buffer.parameters.values())
        with rows_untouched(lambda: self.buffer.version):
            found = torch.autograd.grad(term, [*shared, *self.private.parameters], allow_unused=True)
        if self.penalty is None:
            self.penalty = self.buffer.columns.empty_row()
        for columns, gradient in zip(self.buffer.tensors.values(), found, strict=False):
            if gradient is not None:
                self.penalty[columns] += local_shard(gradient).flatten()
        self.private.add_penalty(found[len(shared) :])

    def write_grad(self, private_weights: Tensor | None) -> None:  # [tasks]
        """Add the penalties and write every `.grad`."""
        self.private.write_grad(private_weights)
        if self.penalty is not None:
            self.buffer.combined.add_(self.penalty)
        self.buffer.write_grad()
        self.written = True
