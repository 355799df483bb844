"""The record of one optimizer step: only tensors of the size of the tasks, so that every event can be kept."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ShadowReading:
    """Describe what another combiner would have done with a step.

    Attributes:
        weights: Weights it would have given, 0 for absent tasks; None where it failed. `[tasks]`
        on_this_trajectory: Whether it remembers earlier steps: it has seen those of this run, which another combiner
            led, and might have learnt other things on its own way.
        note: What it did instead of what its method says, or why it failed; empty where there is nothing to say.
    """

    weights: Tensor | None  # [tasks]
    on_this_trajectory: bool
    note: str = ""


@dataclass(frozen=True)
class WindowReading:
    """Describe the gradients of the last steps, block by block; NaN where a task was seen too rarely.

    Attributes:
        blocks: Unbiased Gramian of the expected gradients in each block. `[blocks, tasks, tasks]`
        power: Mean squared norm of a single step's gradient in each block. `[blocks, tasks]`
        steps: Steps that the blocks cover.
    """

    blocks: Tensor  # [blocks, tasks, tasks]
    power: Tensor  # [blocks, tasks]
    steps: int


@dataclass(frozen=True)
class StepEvent:
    """Describe one optimizer step. All tensors live on the CPU; a task that is absent in the step has count 0.

    Attributes:
        step: Number of the optimizer step, from 1.
        losses: Mean loss of each task in nats, NaN where the task is absent. `[tasks]`
        counts: Label tokens (or rows) each loss averages. `[tasks]`
        gramian: Inner products of the task gradients as the combiner sees them, multiplied by their `scales`; 0 in the
            rows of absent tasks. `[tasks, tasks]`
        weights: Weights the combiner gave, 0 for absent tasks; None where the method has none. `[tasks]`
        learning_rate: Learning rate of the step.
        grad_norm: Norm of the combined gradient of the shared parameters, before clipping.
        layer_gramians: Gramian of each layer, when asked for. `{layer: [tasks, tasks]}`
        skipped: Whether float16 overflowed, so that nothing was learnt; the other values mean nothing then.
        notes: What the combiner did instead of what its method says, one sentence each.
        products: Inner products of the rows with the update, where it has no weights and they were measured. `[tasks]`
        update_norm: Norm of the update that `products` belong to.
        max_grad_norm: What the combined gradient is clipped to; 0: nothing.
        shadows: What other combiners would have done, by name, in the steps in which they are asked.
        window: Statistics of the last steps, in the steps in which they are read.
        scales: What each task gradient was multiplied by before it was combined, 0 for absent tasks. `[tasks]`
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
    products: Tensor | None = None  # [tasks]
    update_norm: float = 0.0
    max_grad_norm: float = 0.0
    shadows: Mapping[str, ShadowReading] | None = None
    window: WindowReading | None = None
    scales: Tensor | None = None  # [tasks]
