"""What happened in one optimizer step: task-sized tensors only, so that keeping every event costs nothing."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepEvent:
    """Describe one optimizer step. All tensors live on the CPU; a task that is absent in the step has count 0.

    Attributes:
        step: Number of the optimizer step, from 1.
        losses: Mean loss of each task in nats, NaN where the task is absent. `[tasks]`
        counts: Label tokens (or rows) each loss averages. `[tasks]`
        gramian: Inner products of the task gradients, 0 in the rows of absent tasks. `[tasks, tasks]`
        weights: Weights the combiner gave, 0 for absent tasks; None where the method has none. `[tasks]`
        learning_rate: Learning rate of the step.
        grad_norm: Norm of the combined gradient of the shared parameters, before clipping.
        layer_gramians: Gramian of each layer, when asked for. `{layer: [tasks, tasks]}`
        skipped: Whether float16 overflowed, so that nothing was learnt; the other values mean nothing then.
        notes: What the combiner did instead of what its method says, one sentence each.
    """

    step: int
    losses: Tensor  # [tasks]
    counts: Tensor  # [tasks]
    gramian: Tensor  # [tasks, tasks]
    weights: Tensor | None  # [tasks]
    learning_rate: float
    grad_norm: float
    layer_gramians: dict[str, Tensor] | None = None
    skipped: bool = False
    notes: tuple[str, ...] = ()
