"""One gradient per task: the object a training loop holds.

A step runs top-down: `row_filler` fills the rows, `step/step` closes them, `step/combiner_input` asks the combiner, and
`rows/gradient_rows` writes `.grad`. On the way a task is known by

- its *name* (configuration, messages) and its *index* in `tasks` (`TaskBatch.task_ids`, `grads.rows(ids)`),
- its *row* of the buffer, also called owner: the index, plus `num_tasks` for the second half of its rows
  (`step/half_split`); `batch.Segments` is the lookup from a row of the buffer to the rows of a batch,
- its *position* among the tasks present in a step, which is all a combiner sees (`step/combiner_input`).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from mtl_opt.gradients.checks import check_kinds, check_trainable, checked_tasks, refuse_wrapped
from mtl_opt.gradients.engines.choice import build_buffer, build_engine
from mtl_opt.gradients.engines.per_task import PerTask
from mtl_opt.gradients.layers.open_segments import OpenSegments
from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.row_filler import RowFiller
from mtl_opt.gradients.rows.row_buffer import RowBuffer
from mtl_opt.gradients.rows.shards import unsharded
from mtl_opt.gradients.step.combiner_input import CombinerLike, input_of, weights_from
from mtl_opt.gradients.step.half_split import HalfSplit
from mtl_opt.gradients.step.loss_roots import Losses
from mtl_opt.gradients.step.loss_scaler import LossScaler
from mtl_opt.gradients.step.private_gradients import PrivateGradients
from mtl_opt.gradients.step.row_scales import RowScales
from mtl_opt.gradients.step.step import Step
from mtl_opt.gradients.step.window import Window


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

    `backward` adds counts times gradients to the rows; the first reading (`gramian`, `combine`, ...) closes the step:
    rows and counts are summed over all processes of `torch.distributed`, then every row is divided by its task's own
    total, and scaled where `loss_reduction` or `task_weights` ask for it. So k micro-batches on P processes give
    exactly the gradient of one large batch. A task whose total is 0 is absent: its row is 0, its loss NaN, its weight
    0.

    The shared parameters' `.grad` belongs to this object: it holds the combined gradient from `write` to `zero`.

    Args:
        model: The model; its trainable parameters are shared unless `private` says otherwise.
        tasks: Names of the tasks, in the order of the rows.
        engine: "one_pass" (one backward for all tasks), "per_task" (one backward per task, any model), "two_pass"
            (two backwards, no rows in memory), "feature:MODULE" (rows at the output of a module), or "auto": one_pass
            where the model allows it; `engine_reason` says why not.
        private: Parameters of one task alone, by task; default `model.task_parameters()` where the model has it.
        shared: Parameters whose gradients are combined; default all trainable ones that are not private.
        head_policy: Gradient of private parameters: "task" leaves it as it is, "weighted" scales it as the task's
            row was scaled, and by its weight.
        loss_reduction: What each row is scaled by before a combiner sees it: "task" (nothing: the gradient of the
            mean loss), "rows" (rows of the task over the mean rows of the present tasks) or "tokens" (its counts over
            their mean: with the combiner `Sum` the gradient of the mean over all tokens, times the present tasks).
        task_weights: Further factor of each row, by task, at least 0; default 1.
        verify: Check in the first step that no task's loss depends on rows of another (engines that wire layers);
            default where "auto" has chosen one_pass.
        halves: Deal every task's rows to two halves, for combiners that require them. Losses and counts are then
            those of the halves, `[2, tasks]`; `owners` says which row is in which.
        window: Steps of the running statistics (a multiple of 10, at least 20; one more buffer); 0: none.
        buffer_dtype: Precision of the rows; default float32 (float64 where a parameter has it). bfloat16 halves the
            memory and rounds every row to 3 digits.
        buffer_device: Where the rows are kept; default the model's device.
        scaler: Scales the losses of a float16 forward.
        process_group: Processes that share a step; default all.

    Raises:
        ValueError: If the model has nothing to train, is wrapped or cannot be wired, or an argument is not allowed.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[str],
        engine: str = "auto",
        *,
        private: Mapping[str, Sequence[nn.Parameter]] | None = None,
        shared: Sequence[nn.Parameter] | None = None,
        head_policy: Literal["task", "weighted"] = "task",
        loss_reduction: Literal["task", "rows", "tokens"] = "task",
        task_weights: Mapping[str, float] | None = None,
        verify: bool | None = None,
        halves: bool = False,
        window: int = 0,
        buffer_dtype: torch.dtype | None = None,
        buffer_device: torch.device | str | None = None,
        scaler: LossScaler | None = None,
        process_group: ProcessGroup | None = None,
    ) -> None:
        refuse_wrapped(model)
        self.tasks = checked_tasks(tasks)
        if head_policy not in {"task", "weighted"}:
            raise ValueError(f"`head_policy` must be 'task' or 'weighted', got {head_policy!r}.")
        self.head_policy = head_policy
        self.private = PrivateGradients(model, self.tasks, private)
        owned = {id(p) for p in self.private.parameters}
        wanted = None if shared is None else {id(p) for p in shared}
        combined = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and id(parameter) not in owned and (wanted is None or id(parameter) in wanted)
        ]
        check_trainable(bool(combined), bool(owned), engine)
        check_kinds(dict(combined))
        self.processes = Processes(process_group)
        self.buffer = build_buffer(
            engine, combined, self.num_tasks, self.processes, halves, buffer_dtype, buffer_device
        )
        open_rows = OpenSegments(self.buffer.num_rows, halves)
        owners = self.private.groups * (2 if halves else 1)
        self.engine, self.engine_reason = build_engine(engine, model, self.buffer, owners, open_rows)
        self.halves = HalfSplit(self.num_tasks, self.processes) if halves else None
        self.row_scales = RowScales(self.tasks, loss_reduction, task_weights)
        chosen = engine == "auto" and self.engine.wires
        self._filler = RowFiller(
            self.engine, open_rows, self.halves, chosen if verify is None else verify, loss_reduction == "rows"
        )
        self._auto = PerTask(model, self.buffer, owners) if chosen and isinstance(self.buffer, RowBuffer) else None
        self._frozen = {} if shared is not None else {n: p for n, p in model.named_parameters() if not p.requires_grad}
        self.window = Window(self.num_tasks, window, self.buffer.jacobian) if window else None
        self.scaler = scaler
        self._stateful = {n: p for n, p in (("window", self.window), ("scaler", scaler)) if p is not None}
        self._begin()

    @property
    def num_tasks(self) -> int:
        """Number of tasks, present or not."""
        return len(self.tasks)

    @property
    def num_losses(self) -> int:
        """Number of losses that `backward` takes: one per task, or two where rows are dealt to halves."""
        return self.buffer.num_rows

    def rows(self, ids: Tensor, num_rows: Tensor | None = None) -> AbstractContextManager[None]:
        """Declare which task owns each row of the batch, from the forward to the end of the backward.

        Args:
            ids: Task index of each row `[batch]`, or of each token `[batch, seq]` of packed rows.
            num_rows: Rows of each task, which `loss_reduction="rows"` needs of packed rows; default counted. `[tasks]`

        Returns:
            A context for the forward and `backward`; with halves every process must open it equally often.
        """
        return self._filler.rows(ids, num_rows)

    @property
    def owners(self) -> Tensor:  # [batch] or [batch, seq]
        """Where each row goes while `rows` is open: its task, plus `num_tasks` in the second half."""
        return self._filler.open_owners()

    def backward(self, losses: Losses, counts: Tensor | None = None) -> None:  # [tasks], [tasks]
        """Add `counts · ∇losses` to the rows.

        Args:
            losses: Mean loss of every task over this batch: `[tasks]` (with halves `[2, tasks]`, flat or not), a
                sequence in task order, or `{task: loss}`. None, or a missing name: the task is absent.
            counts: Label tokens (or rows) that each loss averages, 0 for an absent task; default 1 for every task
                that has rows. `[tasks]`, or the shape of `losses`

        A `ValueError` says when it is called outside `rows` (engine one_pass), after the step was closed, with the
        wrong number of losses, or on top of gradients that were already summed.
        """
        self._check_frozen()
        if self._auto is not None and not self._filler.is_open:  # several losses on the same rows, or all of them apart
            self.engine, self.engine_reason = self._auto, "`backward` was called without `rows`"
            self._filler.engine, self._auto = self._auto, None
        self._filler.backward(self._step, losses, counts)

    def _check_frozen(self) -> None:
        """Raise where parameters were frozen or released since the columns were laid out."""
        changed = [name for name, p in self.buffer.parameters.items() if not p.requires_grad]
        changed += [name for name, p in self._frozen.items() if p.requires_grad]
        if changed:
            raise ValueError(
                f"`{changed[0]}` was frozen or released after `TaskGradients` was built; build a new one, which knows "
                "what is trained."
            )

    def penalty(self, term: Tensor) -> None:  # []
        """Add a term on parameters alone; its gradient joins after the tasks' are combined.

        Args:
            term: A scalar that depends on no row, such as a distance or an orthogonality penalty; before the
                gradient of the step is written, the same in all processes. `[]`
        """
        self._step.add_penalty(term)

    @property
    def present(self) -> list[int]:
        """Indices of the tasks that have rows in this step; closes the step."""
        return self._step.close().present

    @property
    def jacobian(self) -> Tensor:  # [tasks, params]
        """The rows, 0 for absent tasks `[tasks, params]`; closes the step."""
        return self._step.close().buffer.jacobian

    @property
    def counts(self) -> Tensor:  # [tasks]
        """Totals that the losses average `[tasks]`; closes the step."""
        return self._step.close().counts

    @property
    def scales(self) -> Tensor:  # [tasks]
        """Factor of each row (`loss_reduction` and `task_weights`), 0 for an absent task `[tasks]`; closes the step."""
        return self._step.close().scales

    def losses(self) -> Tensor:  # [tasks]
        """Average the losses of the whole step; closes it.

        Returns:
            Mean loss per task, NaN where the task is absent. `[tasks]`
        """
        return self._step.close().losses

    def gramian(self, by: str | None = None) -> Any:
        """Compute the inner products of the task gradients; closes the step.

        Args:
            by: None for all shared parameters, "layer" or "tensor" for one Gramian per block.

        Returns:
            `[tasks, tasks]`, or `{block: [tasks, tasks]}`.
        """
        return self._step.gramian() if by is None else self._step.close().buffer.gramians(by)

    def two_sample_gramian(self) -> Tensor:  # [tasks, tasks]
        """Compute the inner products between the two halves' mean gradients; closes the step.

        Returns:
            `J1 J2ᵀ`, not symmetric; unbiased for the expected gradients, the diagonal included. `[tasks, tasks]`

        A `ValueError` says when rows are not dealt to halves.
        """
        return self._step.two_sample_gramian()

    def non_finite(self) -> list[str]:
        """Find tasks whose row or private gradients overflowed; closes the step.

        Returns:
            Their names.
        """
        squares = self.gramian().diagonal().cpu() + self.private.squared_norms()
        return [task for task, finite in zip(self.tasks, squares.isfinite().tolist(), strict=True) if not finite]

    def input_of(self, combiner: CombinerLike) -> Any:  # -> [present, present]
        """Compute what a combiner that needs no rows would be given in this step; closes the step.

        Args:
            combiner: As `combine` takes it.

        Returns:
            The Gramian of the present tasks `[present, present]`, or one such Gramian per block.
        """
        return input_of(combiner, self._step, self.window)

    def combine(self, combiner: CombinerLike) -> Tensor | None:  # -> [tasks]
        """Close the step, ask the combiner, and write the combined gradient into `.grad`.

        Args:
            combiner: Any combiner of `mtl_opt.combiners`, or an object with the same members.

        Returns:
            The weights, 0 for absent tasks; None where there are none (or some per block, or nothing shared). `[tasks]`
        """
        combiner.bind(self.tasks)
        if not self.buffer.parameters and self.present:
            return self._finish(None)  # nothing to combine: each task takes its own gradient
        if combiner.requires == "jacobian":
            present = self.present
            rows = self.buffer.whole_rows() if len(present) == self.num_tasks else self.buffer.whole_rows()[present]
            self.write_vector(combiner(rows, self.losses()[present], tasks=present))
            return None
        self.write(weights := weights_from(combiner, self._step, self.window))
        return weights if isinstance(weights, Tensor) else None

    def write(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks] or {block: [tasks]}
        """Write the weighted sum of the rows into `.grad`.

        Args:
            weights: One weight per task `[tasks]`, or one such vector per layer or per tensor, by the names that
                `gramian(by=...)` gives.
        """
        self._step.close().buffer.apply(weights)
        self._finish(weights if isinstance(weights, Tensor) else None)

    def write_vector(self, gradient: Tensor) -> None:  # [params]
        """Write a gradient of one's own making into `.grad`.

        Args:
            gradient: The combined gradient, in the order of the Jacobian's columns. `[params]`
        """
        self._step.close().buffer.put(gradient)
        self._finish(None)

    def _finish(self, weights: Tensor | None) -> Tensor | None:
        """Write every `.grad` and add the rows to the window; return the weights."""
        if self.head_policy == "weighted" and weights is None:
            raise ValueError("`head_policy='weighted'` needs a combiner with one weight per task.")
        scaled = None if weights is None else weights * self.scales.to(weights)
        self._step.write_grad(scaled if self.head_policy == "weighted" else None)
        if self.window is not None and self.window.add(self.jacobian, self.gramian().diagonal(), self.present):
            self.window.finish_block(self.buffer.product(self.window.sums))
        return weights

    def clip(self, max_norm: float) -> float:
        """Clip the gradient, over the shared and over each task's private parameters apart.

        Args:
            max_norm: Largest norm allowed; 0 measures without clipping.

        Returns:
            Norm of the shared gradient before clipping.
        """
        limit = max_norm if max_norm > 0 else float("inf")
        self.private.clip(limit)
        return float(unsharded(nn.utils.clip_grad_norm_(list(self.buffer.parameters.values()), limit)))

    def zero(self) -> None:
        """Open the next step: empty the rows and set every `.grad` to None."""
        self.buffer.zero()
        self.private.zero()
        if self.halves is not None:
            self.halves.restart()
        self._begin()

    def _begin(self) -> None:
        self._step = Step(self.tasks, self.buffer, self.row_scales, self.private, self.halves, self.scaler)

    def state_dict(self) -> dict[str, Any]:
        """Collect what must travel in a checkpoint: the window's sums and the loss scale.

        Returns:
            What `load_state_dict` takes.
        """
        return {name: part.state_dict() for name, part in self._stateful.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, between two steps.

        Args:
            state: What `state_dict` gave.
        """
        for name, part in self._stateful.items():
            part.load_state_dict(state[name])
