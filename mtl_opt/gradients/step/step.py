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
from mtl_opt.gradients.step.row_scales import RowScales


class Step:
    """Accumulate counts and losses of a step, and close it: sums of counts·gradients become scaled mean gradients.

    `[rows]` below is one number per task, or two where rows are dealt to halves.

    Args:
        tasks: Names of the tasks.
        buffer: The rows.
        row_scales: Computes the factor of every mean gradient.
        private: Gradients of private parameters.
        halves: How rows are dealt to halves; None where they are not.
        scaler: What losses were scaled with.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        buffer: GradientRows,
        row_scales: RowScales,
        private: PrivateGradients,
        halves: HalfSplit | None,
        scaler: LossScaler | None,
    ) -> None:
        self.tasks = tasks
        self.buffer = buffer
        self.row_scales = row_scales
        self.private = private
        self.halves = halves
        self.scaler = scaler
        self.totals: Tensor | None = None  # [rows], counts so far; None before the first backward
        self.sums: Tensor | None = None  # [rows], counts times losses
        self.num_rows: Tensor | None = None  # [tasks], rows of the batches so far
        self.counts = self.losses = self.scales = torch.empty(0)  # [tasks], once closed
        self.present: list[int] = []
        self.closed = self.written = False
        self.two_sample: Tensor | None = None  # [tasks, tasks]
        self.penalty: Tensor | None = None  # [params]
        self._gramian: Tensor | None = None  # [tasks, tasks]

    def add(self, counts: Tensor, sums: Tensor, num_rows: Tensor) -> None:  # [rows], [rows], [tasks]
        """Add the counts and losses of a micro-batch, and the number of its rows."""
        if self.totals is None or self.sums is None or self.num_rows is None:
            self.totals = self.sums = torch.zeros_like(counts)
            self.num_rows = torch.zeros_like(counts[: len(self.tasks)])
        self.totals = self.totals + counts
        self.sums = self.sums + torch.where(counts > 0, sums, 0)
        self.num_rows = self.num_rows + num_rows.to(self.num_rows)

    def close(self) -> "Step":
        """Sum over the processes, divide every row by its task's total and scale it, once."""
        if self.closed:
            return self
        # Row t holds Σ counts·∇loss over micro-batches and processes: one division by its total gives the mean, so
        # that k micro-batches on P processes equal one large batch. The loss scale and the scale of the row (of a task
        # of weight 0 the total is then infinite, and its row 0) go with the same division.
        totals, num_rows = self._count()
        factor = self.scaler.scale if self.scaler else 1.0
        self.scales = self.row_scales.of_step(self.counts, num_rows)
        scaled = factor / torch.where(self.counts > 0, self.scales, 1)
        self.buffer.sum_over_processes()
        if self.halves is not None:
            self.halves.check(totals, self.tasks)
            self.two_sample = self.buffer.two_sample(totals * scaled.repeat(2))
        self.buffer.divide(self.counts * scaled)
        self.private.sum_over(self.buffer.processes, self.present)
        self.private.divide(self.counts * factor, self.present)
        self.closed = True
        return self

    def _count(self) -> tuple[Tensor, Tensor]:  # -> [rows], [tasks]
        """Sum counts, losses and numbers of rows over the processes; find the present tasks."""
        processes, size = self.buffer.processes, len(self.tasks)
        if self.totals is None or self.sums is None or self.num_rows is None:  # no rows here, but others may have some
            rows = size * (2 if self.halves else 1)
            self.totals = self.sums = torch.zeros(rows, dtype=torch.float64, device=self.buffer.columns.device)
            self.num_rows = self.totals[:size]
        message = processes.sum(torch.cat([self.totals, self.sums, self.num_rows]))
        self.totals, self.sums, num_rows = message.split([len(self.totals), len(self.sums), size])
        if not bool(self.totals.any()):
            raise ValueError("There are no rows to read: call `grads.backward(losses)` first.")
        self.counts = self.totals.view(-1, size).sum(0)
        self.losses = self.sums.view(-1, size).sum(0) / self.counts
        self.present = [task for task, total in enumerate(self.counts.tolist()) if total > 0]
        return self.totals, num_rows

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
        for (name, columns), gradient in zip(self.buffer.tensors.items(), found, strict=False):
            if gradient is not None:
                self.buffer.reached.add(name)
                self.penalty[columns] += local_shard(gradient).flatten()
        self.private.add_penalty(found[len(shared) :])

    def write_grad(self, private_weights: Tensor | None) -> None:  # [tasks]
        """Add the penalties and write every `.grad`."""
        self.private.write_grad(private_weights)
        if self.penalty is not None:
            self.buffer.combined.add_(self.penalty)
        self.buffer.write_grad()
        self.written = True
