"""The expected cost of a run: memory, steps, tokens, and the engine that computes the gradients."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from mtl_opt.batch import TaskBatch
from mtl_opt.gradients import TaskGradients
from mtl_opt.gradients.rows.row_buffer import RowBuffer
from mtl_opt.gradients.rows.scratch_rows import SCRATCH
from mtl_opt.models import file_bytes, model_on_meta, put_heads
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.preview.memory import (
    Memory,
    activation_bytes,
    logit_bytes,
    optimizer_bytes,
    quantized_weights,
    row_bytes,
    shape_of,
    weight_bytes,
)
from mtl_opt.training.processes import world_size
from mtl_opt.training.setup.combiner import build_combiner
from mtl_opt.training.setup.data import Prepared, prepare
from mtl_opt.training.setup.gradients import build_gradients
from mtl_opt.training.setup.loader import batch_maker
from mtl_opt.training.setup.model import put_sharing
from mtl_opt.training.setup.model_settings import (
    adapter_settings,
    autocast_dtype,
    base_dtype,
    quantization_settings,
)
from mtl_opt.training.setup.private_options import refuse_idle_options
from mtl_opt.training.setup.sampler import build_sampler, rows_per_task
from mtl_opt.training.setup.selection import selection_of

DRAWS = 64
"""Micro-batches drawn to count tokens: the first ones of the run itself."""


@dataclass(frozen=True)
class TokenCounts:
    """The sizes of the micro-batches of a run.

    Attributes:
        largest: Tokens of the largest one, padding included.
        longest: Length of the longest sequence.
        learnt: Most learnt tokens in one.
        per_step: Mean tokens of a step, padding included.
        real_per_step: Mean tokens of a step, without padding.
    """

    largest: int
    longest: int
    learnt: int
    per_step: float
    real_per_step: float


@dataclass(frozen=True)
class RunPlan:
    """The expected cost of a run, as `mtl-opt plan` prints it.

    Attributes:
        memory: Bytes of one process.
        parameters: All parameters of the model.
        shared: Trained parameters whose gradients are combined.
        private: Trained parameters of one task alone.
        file_bytes: Size of the files of the base model; None where they are not on this machine.
        engine: How task gradients are computed.
        engine_reason: Why this engine.
        steps: Optimizer steps.
        rows_per_step: Rows of a step.
        tokens: Sizes of the micro-batches of one process.
    """

    memory: Memory
    parameters: int
    shared: int
    private: int
    file_bytes: int | None
    engine: str
    engine_reason: str
    steps: int
    rows_per_step: int
    tokens: TokenCounts

    def to_json(self) -> dict[str, Any]:
        """Convert the plan to plain values."""
        return {**asdict(self), "memory": {**asdict(self.memory), "total": self.memory.total}}

    def sentence(self) -> str:
        """Summarise the plan in one line for the log."""
        memory = self.memory
        return (
            f"{self.shared + self.private} of {self.parameters} parameters are trained; memory, estimated: "
            f"{human(memory.total)} (weights {human(memory.weights)}, task gradients {human(memory.gradient_rows)}, "
            f"combined gradient {human(memory.combined_gradient)}, optimizer {human(memory.optimizer)}, activations "
            f"{human(memory.activations)}, logits {human(memory.logits)}); {self.steps} steps of {self.rows_per_step} "
            f"rows and about {self.tokens.per_step:.0f} tokens"
        )


def human(size: int) -> str:
    """Format a number of bytes with a binary unit.

    Examples:
        >>> human(1536 * 2**20), human(300)
        ('1.50 GiB', '0.3 KiB')
    """
    if size >= 2**30:
        return f"{size / 2**30:.2f} GiB"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def plan_run(config: TrainConfig) -> RunPlan:
    """Plan a run from its configuration: data are read, weights are not loaded."""
    prepared = prepare(config).only(config.only_tasks)
    selection_of(config, prepared)
    model, quantized = meta_model(config, prepared)
    on_meta = replace(config, gradient_buffer_device="model")  # a buffer on the CPU would be memory
    grads = build_gradients(
        on_meta, model, prepared.tasks, build_combiner(config, prepared.tasks, prepared.settings), prepared.settings
    )
    return plan_of(config, prepared, model, grads, quantized)


def meta_model(config: TrainConfig, prepared: Prepared) -> tuple[Any, dict[int, tuple[int, int]]]:
    """Build the model of a run without its weights, and find what would be quantised."""
    settings = quantization_settings(config)
    hard = config.sharing == "hard"
    model, quantized = model_on_meta(
        config.model_name_or_path,
        lora=adapter_settings(config) if hard else None,
        dtype=base_dtype(config),
        trust_remote_code=config.trust_remote_code,
        quantization=settings,
        heads=prepared.head_specs is not None,
    )
    if not hard:
        with torch.device("meta"):
            put_sharing(config, model, prepared.tasks, prepared.settings)
    if prepared.head_specs is not None:
        with torch.device("meta"):
            model = put_heads(model, prepared.head_specs, config.model_name_or_path)
    refuse_idle_options(model, config.sharing, prepared.tasks, prepared.settings)
    return model, quantized


def plan_of(
    config: TrainConfig,
    prepared: Prepared,
    model: Any,
    grads: TaskGradients,
    quantized: dict[int, tuple[int, int]] | None = None,
) -> RunPlan:
    """Plan a run whose model and task gradients are built, on any device."""
    sampler, steps = build_sampler(config, prepared, quiet=quantized is None)  # a run that begins has built one
    draws = [sampler.draw() for _ in range(min(DRAWS, steps * config.gradient_accumulation_steps))]
    tokens = count_tokens(batch_maker(config, prepared)(draws), config.gradient_accumulation_steps / len(draws))
    shared, private = list(grads.buffer.parameters.values()), grads.private.parameters
    trained = [p.numel() for p in (*shared, *private)]
    numbers = sum(p.numel() for p in shared)
    found = quantized_weights(model) if quantized is None else quantized
    half = autocast_dtype(config) is not None
    activations, logits = _forward_bytes(model, tokens, half, config.gradient_checkpointing)
    memory = Memory(
        weights=weight_bytes(model, found, quantization_settings(config)),
        gradient_rows=_gradient_bytes(grads, shared),
        combined_gradient=row_bytes(2 if grads.engine.name == "per_task" else 1, numbers),
        optimizer=optimizer_bytes(config.optim, trained),
        activations=activations,
        logits=logits,
    )
    frozen = [p.numel() for p in model.parameters() if not p.requires_grad and id(p) not in found]
    return RunPlan(
        memory=memory,
        parameters=sum(trained) + sum(frozen) + sum(numbers for numbers, _ in found.values()),
        shared=numbers,
        private=sum(trained) - numbers,
        file_bytes=file_bytes(config.model_name_or_path),
        engine=grads.engine.name,
        engine_reason=grads.engine_reason.rstrip("."),
        steps=steps,
        rows_per_step=rows_per_task(config, len(prepared.tasks))
        * len(prepared.tasks)
        * config.gradient_accumulation_steps
        * world_size(),
        tokens=tokens,
    )


def _gradient_bytes(grads: TaskGradients, shared: Sequence[nn.Parameter]) -> int:
    """Compute the size of the task gradients: all rows and those of the window, or one block of engine two_pass."""
    buffer, largest = grads.buffer, max((p.numel() for p in shared), default=0)
    if not isinstance(buffer, RowBuffer):
        return row_bytes(2, min(SCRATCH, buffer.num_rows * largest))
    num_rows = len(buffer.rows) + (grads.num_tasks if grads.window is not None else 0)
    return row_bytes(num_rows, buffer.columns.size, buffer.rows.element_size())


def _forward_bytes(model: Any, tokens: TokenCounts, half: bool, checkpointed: bool) -> tuple[int, int]:
    """Estimate activations and logits; 0 where the model's dimensions are unknown."""
    shape = shape_of(model)
    if shape is None:
        return 0, 0
    logits = logit_bytes(shape.vocabulary, tokens.largest, tokens.learnt, half=half)
    activations = activation_bytes(
        shape, tokens.largest, tokens.longest, half=half, checkpointed=checkpointed, logits=logits
    )
    return activations, logits


def count_tokens(batches: Sequence[TaskBatch], per_step: float) -> TokenCounts:
    """Count the tokens of the first micro-batches, and their average per step, which has this share of them."""
    sizes = [batch.input_ids.numel() for batch in batches]
    real = [int(batch.attention_mask.sum()) for batch in batches]
    return TokenCounts(
        largest=max(sizes, default=0),
        longest=max((batch.input_ids.shape[1] for batch in batches), default=0),
        learnt=max((int((batch.labels[:, 1:] >= 0).sum()) for batch in batches), default=0),
        per_step=sum(sizes) * per_step,
        real_per_step=sum(real) * per_step,
    )


def plan_text(found: RunPlan) -> str:
    """Format a plan as a table of names and values."""
    memory, tokens = found.memory, found.tokens
    files = "not on this machine" if found.file_bytes is None else human(found.file_bytes)
    lines = [
        ("files of the base model", files),
        ("weights", human(memory.weights)),
        ("task gradients", human(memory.gradient_rows)),
        ("combined gradient", human(memory.combined_gradient)),
        ("optimizer state", human(memory.optimizer)),
        ("activations (estimate)", human(memory.activations)),
        ("logits (estimate)", human(memory.logits)),
        ("total per process", human(memory.total)),
        ("parameters", f"{found.parameters}, of which trained {found.shared} shared, {found.private} private"),
        ("steps", f"{found.steps} of {found.rows_per_step} rows"),
        ("tokens per step", f"{tokens.per_step:.0f}, of which {tokens.real_per_step:.0f} are no padding"),
        ("gradient engine", f"{found.engine}: {found.engine_reason}"),
    ]
    return "\n".join(f"{name:<26}{value}" for name, value in lines)
