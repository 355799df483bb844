"""The flow: batches → losses → task gradients → combiner → optimizer → event."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mtl_opt.batch import TaskBatch
from mtl_opt.combiners import Combiner
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients
from mtl_opt.models import task_losses
from mtl_opt.monitor import StepEvent


@dataclass(frozen=True)
class Parts:
    """What one training step moves.

    Attributes:
        model: The model.
        grads: Its task gradients.
        combiner: What merges them.
        optimizer: What takes the step.
        scheduler: What sets the learning rate.
        max_grad_norm: Largest norm of the combined gradient; 0: no limit.
        bf16: Whether the forward runs under bfloat16 autocast.
    """

    model: Any  # a Hugging Face model, or a peft model around one
    grads: TaskGradients
    combiner: Combiner
    optimizer: Optimizer
    scheduler: LRScheduler
    max_grad_norm: float
    bf16: bool


def training_step(parts: Parts, batches: Sequence[TaskBatch], step: int) -> StepEvent:
    """Take one optimizer step on the micro-batches of one step.

    Args:
        parts: What the step moves.
        batches: Micro-batches whose gradients are accumulated, on the model's device.
        step: Number of this step, from 1.

    Returns:
        What happened.

    An `InputError` says which loss or gradient is not finite; the step is then not taken.
    """
    grads = parts.grads
    for batch in batches:
        with grads.rows(batch.task_ids):
            with torch.autocast(batch.input_ids.device.type, torch.bfloat16, enabled=parts.bf16):
                losses, counts = task_losses(parts.model, batch, grads.num_tasks)
            grads.backward(losses, counts)
    _refuse_non_finite(grads, step)
    weights = grads.combine(parts.combiner)
    grad_norm = grads.clip(parts.max_grad_norm)
    event = _event(parts, weights, grad_norm, step)
    parts.optimizer.step()
    parts.scheduler.step()
    grads.zero()
    return event


def _refuse_non_finite(grads: TaskGradients, step: int) -> None:
    """Stop before a non-finite loss or gradient reaches the optimizer; the last checkpoint stays good."""
    losses, norms = torch.stack([grads.losses(), grads.gramian().diagonal()]).tolist()  # one transfer for all tasks
    for task in grads.present:
        for what, value in (("loss", losses[task]), ("gradient", norms[task])):
            if not math.isfinite(value):
                raise InputError(
                    f"The {what} of task `{grads.tasks[task]}` is not finite ({value}) at step {step}; "
                    "the step was not taken. A lower `learning_rate` or a look at the task's rows may help."
                )


def _event(parts: Parts, weights: Tensor | None, grad_norm: float, step: int) -> StepEvent:
    """Copy what happened to the CPU; stop where the combination is not finite, before the optimizer sees it."""
    if not math.isfinite(grad_norm):
        raise InputError(f"The combined gradient is not finite at step {step} (weights {weights}); it was not taken.")
    grads = parts.grads
    return StepEvent(
        step=step,
        losses=grads.losses().cpu(),
        counts=grads.counts.cpu(),
        gramian=grads.gramian().cpu(),
        weights=None if weights is None else weights.cpu(),
        learning_rate=float(parts.scheduler.get_last_lr()[0]),
        grad_norm=grad_norm,
        notes=tuple(parts.combiner.take_notes()),
    )
