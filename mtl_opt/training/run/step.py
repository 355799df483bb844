"""The flow: batches → losses → task gradients → combiner → optimizer → event."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mtl_opt.batch import TaskBatch
from mtl_opt.combiners import Combiner
from mtl_opt.errors import DivergedError
from mtl_opt.gradients import TaskGradients
from mtl_opt.models import task_losses
from mtl_opt.monitor import StepEvent
from mtl_opt.training.run.step_monitor import StepMonitor
from mtl_opt.training.setup.model_settings import autocast

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The objects that a training step acts on.

    Attributes:
        model: The model.
        grads: The task gradients of its shared and private parameters.
        combiner: Merges the task gradients into one update.
        optimizer: Applies the update.
        scheduler: Sets the learning rate of every step.
        max_grad_norm: Largest norm of the combined gradient; 0: no limit.
        precision: Number format that the forward is autocast to; None: no autocast.
        total_steps: Steps of the whole run.
        monitor: Measures the step; None: nothing beyond what every event has.
        watch: Sees the task gradients of every step before they are combined; None: nothing does.
    """

    model: Any  # a Hugging Face model, or a peft model around one
    grads: TaskGradients
    combiner: Combiner
    optimizer: Optimizer
    scheduler: LRScheduler
    max_grad_norm: float
    precision: torch.dtype | None
    total_steps: int
    monitor: StepMonitor | None = None
    watch: "Watch | None" = None

    def autocast(self, device: torch.device) -> torch.autocast:
        """Run the forward in the precision of the run."""
        return autocast(device, self.precision)


Watch = Callable[[Parts, Sequence[TaskBatch], int], None]
"""Called with the parts, the micro-batches and the number of every step; must change none of them."""


def training_step(parts: Parts, batches: Sequence[TaskBatch], step: int) -> StepEvent:
    """Take one optimizer step on the micro-batches of one step.

    Args:
        parts: Model, task gradients, combiner and optimizer of the run.
        batches: Micro-batches whose gradients are accumulated, on the model's device.
        step: Number of this step, from 1.

    Returns:
        Losses (nats per label token), Gramian, weights, learning rate and norm of the step, on the CPU.

    A loss or gradient that is not finite raises `DivergedError`, and the step is not taken. Under float16 such a step
    is skipped: neither optimizer nor combiner sees it, and the loss scale is halved.
    """
    grads = parts.grads
    for batch in batches:
        with grads.rows(batch.task_ids, batch.num_rows(grads.num_tasks)):
            grads.backward(*_losses_and_counts(parts, batch))
    _add_penalty(parts, step)
    if _overflowed(grads, step):
        return _skipped_step(parts, step)
    _check_finite(grads, step)
    _show_gradients(parts, batches, step)
    weights = grads.combine(parts.combiner)
    event = _event(parts, weights, grads.clip(parts.max_grad_norm), step)
    parts.optimizer.step()
    parts.scheduler.step()
    grads.zero()
    return event


def _losses_and_counts(parts: Parts, batch: TaskBatch) -> tuple[Tensor, Tensor]:  # [num_losses], [num_losses]
    """Compute the mean loss of every task (or half of its rows) and the number of label tokens behind it."""
    with parts.autocast(batch.input_ids.device):
        return task_losses(parts.model, replace(batch, task_ids=parts.grads.owners), parts.grads.num_losses)


def _add_penalty(parts: Parts, step: int) -> None:
    """Add the gradient of a regulariser on parameters alone, where the way of sharing has one."""
    if not hasattr(parts.model, "sharing"):
        return
    parts.model.sharing.present = parts.grads.present
    term = parts.model.sharing.penalty(step, parts.total_steps)
    if term is not None:
        parts.grads.penalty(term)


def _show_gradients(parts: Parts, batches: Sequence[TaskBatch], step: int) -> None:
    """Let the monitor and a watcher look at the task gradients before they are combined."""
    if parts.monitor is not None:
        parts.monitor.before_combining(parts.grads, step)
    if parts.watch is not None:
        parts.watch(parts, batches, step)


def _overflowed(grads: TaskGradients, step: int) -> bool:
    """Check the float16 gradients for overflow and adapt the loss scale; without one nothing overflows."""
    if grads.scaler is None:
        return False
    tasks = grads.non_finite()
    grads.scaler.update(overflow=bool(tasks))
    if tasks:
        names = ", ".join(f"`{task}`" for task in tasks)
        logger.info("Step %d skipped: %s overflowed float16; loss scale now %g.", step, names, grads.scaler.scale)
    return bool(tasks)


def _skipped_step(parts: Parts, step: int) -> StepEvent:
    """Discard the gradients of a step, and record that it was skipped."""
    nothing = torch.zeros(parts.grads.num_tasks)
    parts.grads.zero()
    return StepEvent(
        step=step,
        losses=nothing * torch.nan,
        counts=nothing,
        gramian=torch.outer(nothing, nothing),
        weights=None,
        learning_rate=float(parts.scheduler.get_last_lr()[0]),
        grad_norm=math.nan,
        skipped=True,
    )


def _check_finite(grads: TaskGradients, step: int) -> None:
    """Raise before a non-finite loss or gradient reaches the optimizer, so that the last checkpoint stays good."""
    losses, norms = torch.stack([grads.losses(), grads.gramian().diagonal()]).tolist()  # one transfer for all tasks
    if grads.private.parameters:
        norms = (torch.tensor(norms) + grads.private.squared_norms()).tolist()
    for task in grads.present:
        for what, value in (("loss", losses[task]), ("gradient", norms[task])):
            if not math.isfinite(value):
                raise DivergedError(
                    f"The {what} of task `{grads.tasks[task]}` is not finite ({value}) at step {step}; "
                    "the step was not taken. A lower `learning_rate` or a look at the task's rows may help."
                )


def _event(parts: Parts, weights: Tensor | None, grad_norm: float, step: int) -> StepEvent:
    """Record the step on the CPU; raise if the combined gradient is not finite, before the optimizer sees it."""
    if not math.isfinite(grad_norm):
        raise DivergedError(
            f"The combined gradient is not finite at step {step} (weights {weights}); it was not taken."
        )
    grads = parts.grads
    event = StepEvent(
        step=step,
        losses=grads.losses().cpu(),
        counts=grads.counts.cpu(),
        gramian=grads.gramian().cpu(),
        weights=None if weights is None else weights.cpu(),
        learning_rate=float(parts.scheduler.get_last_lr()[0]),
        grad_norm=grad_norm,
        notes=tuple(parts.combiner.take_notes()),
        max_grad_norm=parts.max_grad_norm,
        scales=grads.scales.cpu(),
    )
    return event if parts.monitor is None else parts.monitor.after_combining(grads, event)
