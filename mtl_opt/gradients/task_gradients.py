"""One gradient per task: the object a training loop holds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtl_opt.batch import task_rows
from mtl_opt.gradients.buffer import RowBuffer
from mtl_opt.gradients.checks import (
    check_losses,
    check_no_gradient,
    check_penalty,
    checked_counts,
    checked_tasks,
    rows_untouched,
)
from mtl_opt.gradients.engines import build_engine
from mtl_opt.gradients.one_pass import OnePass
from mtl_opt.gradients.private import PrivateGradients
from mtl_opt.gradients.segments import OpenSegments, Segments
from mtl_opt.gradients.step_state import CombinerLike, StepState


class TaskGradients:
    """Collect one gradient per task over the shared parameters, then write their combination into `.grad`.

    ```
    for batch in micro_batches:
        with grads.rows(batch.task_ids):
            losses, counts = compute_losses(model, batch)
            grads.backward(losses, counts)
    weights = grads.combine(combiner)
    optimizer.step()
    grads.zero()
    ```

    `backward` adds counts times gradients to the rows; the first reading (`gramian`, `losses`, `jacobian`, `write`,
    `combine`) closes the step and divides every row by its task's own total. So k micro-batches give exactly the
    gradient of one large batch. A task whose total is 0 is absent: its row is 0, its loss NaN, its weight 0.

    The shared parameters' `.grad` belongs to this object: it holds the combined gradient from `write` to `zero`.

    Args:
        model: The model; its trainable parameters are shared unless `private` says otherwise.
        tasks: Names of the tasks, in the order of the rows.
        engine: "one_pass" (one backward for all tasks), "per_task" (one backward per task, any model), or "auto":
            one_pass where the model allows it; `engine_reason` says why not.
        private: Parameters of one task alone, by task; default `model.task_parameters()` where the model has it.
        head_policy: Gradient of private parameters: "task" leaves it as it is, "weighted" scales it by the task's
            weight.
        verify: Check in the first step that no task's loss depends on rows of another (engine one_pass).

    Raises:
        ValueError: If the model has no trainable parameter, is wrapped for data parallelism or cannot be wired, or if
            names, engine or policy are not allowed.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[str],
        engine: str = "auto",
        *,
        private: Mapping[str, Sequence[nn.Parameter]] | None = None,
        head_policy: Literal["task", "weighted"] = "task",
        verify: bool = False,
    ) -> None:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            raise ValueError(f"`model` must not be wrapped in {type(model).__name__}: it would mix the tasks' rows.")
        self.tasks = checked_tasks(tasks)
        if head_policy not in {"task", "weighted"}:
            raise ValueError(f"`head_policy` must be 'task' or 'weighted', got {head_policy!r}.")
        self.head_policy = head_policy
        self.private = PrivateGradients(model, self.tasks, private)
        owned = {id(p) for p in self.private.parameters}
        shared = [(n, p) for n, p in model.named_parameters() if p.requires_grad and id(p) not in owned]
        if not shared:
            raise ValueError("`model` has no trainable shared parameter: there is no gradient to combine.")
        self.buffer = RowBuffer(shared, len(self.tasks))
        self._open = OpenSegments(self.num_tasks)
        self.engine, self.engine_reason = build_engine(engine, model, self.buffer, self.private.groups, self._open)
        self._verify = verify
        self._segments: Segments | None = None
        self._step = StepState()

    @property
    def num_tasks(self) -> int:
        """Number of tasks, present or not."""
        return len(self.tasks)

    @contextmanager
    def rows(self, ids: Tensor) -> Iterator[None]:  # [batch] or [batch, seq]
        """Say which task owns each row of the batch, from the forward to the end of the backward.

        Args:
            ids: Task index of each row `[batch]`, or of each token `[batch, seq]` of packed rows.

        Yields:
            Nothing.
        """
        outer = self._segments
        try:
            with task_rows(ids), self.engine.open():
                self._segments = self._open.current()
                yield
        finally:
            self._segments = outer
            self._open.forget()  # the rows around these are found again

    def backward(self, losses: Tensor, counts: Tensor | None = None) -> None:  # [tasks], [tasks]
        """Add `counts · ∇losses` to the rows.

        Args:
            losses: Mean loss of every task over this batch; the value of an absent task is ignored. `[tasks]`
            counts: Label tokens (or rows) that each loss averages, 0 for an absent task; default 1 for every task
                that has rows. `[tasks]`

        A `ValueError` says when it is called outside `rows` (engine one_pass), after the step was closed, with the
        wrong number of losses, or on top of gradients that were already summed.
        """
        self._check_open(losses)
        if counts is None:
            owners = self._segments.rows if self._segments else range(self.num_tasks)
            counts = torch.tensor([float(t in owners) for t in range(self.num_tasks)])
        counts = checked_counts(counts, losses, self.tasks)
        present = [t for t, c in enumerate(counts.tolist()) if c > 0]
        if not present:
            return
        scaled = losses * counts.to(torch.promote_types(losses.dtype, torch.float32))  # bfloat16 has no 1001
        # With one task in the batch there is nothing to mix: wait for one with more.
        if self._verify and isinstance(self.engine, OnePass) and self._segments and len(self._segments.rows) > 1:
            self.engine.verify(scaled, present, self.tasks)
            self._verify = False
        self.engine.backward(scaled, present)
        if self._step.totals is None or self._step.sums is None:
            self._step.totals = self._step.sums = torch.zeros_like(counts)
        self._step.totals = self._step.totals + counts
        self._step.sums = self._step.sums + torch.where(counts > 0, scaled.detach(), 0)

    def _check_open(self, losses: Tensor) -> None:
        """Refuse what would mix steps, rows or tasks."""
        check_losses(losses, self.tasks)
        if self._segments is None and isinstance(self.engine, OnePass):
            raise ValueError("Call `backward` inside `with grads.rows(ids):`, which says whose rows these are.")
        if self._step.closed:
            raise ValueError("This step is closed (its rows were read); call `grads.zero()` before the next one.")
        check_no_gradient(self.buffer.parameters)

    def penalty(self, term: Tensor) -> None:  # []
        """Add a term on parameters alone; its gradient joins after the tasks' are combined.

        Args:
            term: A scalar that depends on no row, such as a distance or an orthogonality penalty; before the
                gradient of the step is written. `[]`
        """
        check_penalty(term, self._step.written)
        shared = list(self.buffer.parameters.values())
        with rows_untouched(self.buffer.rows):
            found = torch.autograd.grad(term, [*shared, *self.private.parameters], allow_unused=True)
        if self._step.penalty is None:
            self._step.penalty = torch.zeros_like(self.buffer.combined)
        for columns, gradient in zip(self.buffer.tensors.values(), found, strict=False):
            if gradient is not None:
                self._step.penalty[columns] += gradient.flatten()
        self.private.add_penalty(found[len(shared) :])

    def _close(self) -> StepState:
        """Divide every row by its task's total, once."""
        step = self._step
        if step.totals is None:
            raise ValueError("There are no rows to read: call `grads.backward(losses)` first.")
        if not step.closed:
            step.closed = True
            step.present = [t for t, total in enumerate(step.totals.tolist()) if total > 0]
            at_least = torch.where(step.totals > 0, step.totals, 1)
            self.buffer.rows.div_(at_least.to(self.buffer.rows)[:, None])
            self.private.divide(step.totals, step.present)
        return step

    @property
    def present(self) -> list[int]:
        """Indices of the tasks that have rows in this step; closes the step."""
        return self._close().present

    @property
    def jacobian(self) -> Tensor:  # [tasks, params]
        """The rows, 0 for absent tasks `[tasks, params]`; closes the step."""
        self._close()
        return self.buffer.rows

    @property
    def counts(self) -> Tensor:  # [tasks]
        """Totals that the losses average `[tasks]`; closes the step."""
        totals = self._close().totals
        assert totals is not None
        return totals

    def losses(self) -> Tensor:  # [tasks]
        """Average the losses of the whole step; closes it.

        Returns:
            Mean loss per task, NaN where the task is absent. `[tasks]`
        """
        sums = self._close().sums
        assert sums is not None
        return sums / self.counts

    def gramian(self, by: str | None = None) -> Any:
        """Compute the inner products of the task gradients; closes the step.

        Args:
            by: None for all shared parameters, "layer" or "tensor" for one Gramian per block.

        Returns:
            `[tasks, tasks]`, or `{block: [tasks, tasks]}`.
        """
        step = self._close()
        if by is not None:
            return self.buffer.gramians(by)
        if step.gramian is None:
            step.gramian = self.buffer.gramian()
        return step.gramian

    def combine(self, combiner: CombinerLike) -> Tensor | None:  # -> [tasks]
        """Close the step, ask the combiner, and write the combined gradient into `.grad`.

        Args:
            combiner: Any combiner of `mtl_opt.combiners`, or an object with the same members.

        Returns:
            The weights, 0 for absent tasks; None where the method has no weights. `[tasks]`
        """
        combiner.bind(self.tasks)
        present = self.present
        losses = self.losses()[present]
        if combiner.requires == "jacobian":
            rows = self.jacobian if len(present) == self.num_tasks else self.jacobian[present]
            self.write_vector(combiner(rows, losses, tasks=present))
            return None
        gramian = self.gramian() if combiner.over == "all" else self.buffer.gramian_over(combiner.over)
        found = combiner.weights(gramian[present][:, present], losses, tasks=present)
        weights = torch.zeros(self.num_tasks, dtype=found.dtype, device=found.device)
        weights[present] = found
        self.write(weights)
        return weights

    def write(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks] or {block: [tasks]}
        """Write the weighted sum of the rows into `.grad`.

        Args:
            weights: One weight per task `[tasks]`, or one such vector per layer or per tensor, by the names that
                `gramian(by=...)` gives.
        """
        self._close()
        self.buffer.apply(weights)
        self._finish(weights if isinstance(weights, Tensor) else None)

    def write_vector(self, gradient: Tensor) -> None:  # [params]
        """Write a gradient of one's own making into `.grad`.

        Args:
            gradient: The combined gradient, in the order of the Jacobian's columns. `[params]`
        """
        self._close()
        self.buffer.put(gradient)
        self._finish(None)

    def _finish(self, weights: Tensor | None) -> None:
        """Scale private gradients where asked, add penalties, and hand the gradient over."""
        if self.head_policy == "weighted" and weights is None:
            raise ValueError("`head_policy='weighted'` needs a combiner with one weight per task.")
        self.private.hand_over(weights if self.head_policy == "weighted" else None)
        if self._step.penalty is not None:
            self.buffer.combined.add_(self._step.penalty)
        self.buffer.hand_over()
        self._step.written = True

    def clip(self, max_norm: float) -> float:
        """Clip the gradient, over the shared and over each task's private parameters apart.

        Args:
            max_norm: Largest norm allowed; 0 measures without clipping.

        Returns:
            Norm of the shared gradient before clipping.
        """
        limit = max_norm if max_norm > 0 else float("inf")
        self.private.clip(limit)
        return float(nn.utils.clip_grad_norm_(list(self.buffer.parameters.values()), limit))

    def zero(self) -> None:
        """Open the next step: empty the rows and set every `.grad` to None."""
        self.buffer.rows.zero_()
        self.private.zero()
        for parameter in self.buffer.parameters.values():
            parameter.grad = None
        self._step = StepState()
