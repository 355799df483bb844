"""Everything a run moves: built from a configuration, saved to and restored from a checkpoint."""

import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from mtl_opt.batch import TaskBatch
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients
from mtl_opt.models import LoraSettings, load_model
from mtl_opt.training.batches import BatchLoader, batch_maker
from mtl_opt.training.combiner import build_combiner, check_layers
from mtl_opt.training.config import TrainConfig
from mtl_opt.training.prepare import Prepared, check_positions, check_vocabulary
from mtl_opt.training.sampling import build_sampler
from mtl_opt.training.step import Parts

logger = logging.getLogger(__name__)


@dataclass
class Totals:
    """Count over the whole run, also across a resume.

    Attributes:
        conflicts: Sum of the conflict rates of all steps with at least one pair of gradients.
        measured: Number of these steps.
        loss: Sum of the mean task loss of every step.
        seconds: Time spent in steps.
    """

    conflicts: float = 0.0
    measured: int = 0
    loss: float = 0.0
    seconds: float = 0.0


@dataclass
class Run:
    """Hold the state of a run between two steps.

    Attributes:
        config: Its configuration.
        prepared: Its data.
        parts: What a step moves.
        loader: The batches of the next step, and which rows come next.
        device: Where the model is.
        total_steps: Optimizer steps of the whole run.
        step: Optimizer steps taken.
        totals: Counts over the run.
        before: Evaluation of the untrained model.
    """

    config: TrainConfig
    prepared: Prepared
    parts: Parts
    loader: BatchLoader
    device: torch.device
    total_steps: int
    step: int = 0
    totals: Totals = field(default_factory=Totals)
    before: dict[str, float] = field(default_factory=dict)

    def next_batches(self) -> list[TaskBatch]:
        """Draw the micro-batches of the next step.

        Returns:
            One batch per accumulation step, or more with `tokens_per_batch`, on the model's device.
        """
        return [batch.to(self.device) for batch in self.loader.next()]


def build_run(config: TrainConfig, prepared: Prepared, trained: Path | None = None) -> Run:
    """Build model, task gradients, combiner, optimizer, scheduler and sampler.

    Args:
        config: The configuration.
        prepared: Its data, cut to the tasks of the run.
        trained: Checkpoint whose weights the model starts from; the rest of its state is restored separately.

    Returns:
        The run, before its first step.

    Raises:
        InputError: If the settings do not fit the model.
    """
    processes = os.environ.get("WORLD_SIZE", "1")  # asked before Accelerator would wait for the others
    if processes != "1":
        raise InputError(f"Training runs in one process, got {processes}; start it without torchrun.")
    sampler, total = build_sampler(config, prepared)
    accelerator = Accelerator()
    set_seed(config.seed)
    model = build_model(config, trained).to(accelerator.device)
    check_vocabulary(prepared, model.get_input_embeddings().num_embeddings)
    check_positions(prepared, model, config.max_new_tokens)
    try:
        grads = TaskGradients(model, prepared.tasks, config.gradient_engine, verify=config.verify_gradients)
    except ValueError as error:
        raise InputError(f"`gradient_engine: {config.gradient_engine}`: {error}") from error
    combiner = build_combiner(config, prepared.tasks, prepared.settings)
    check_layers(combiner, grads)
    logger.info("Gradient engine %s: %s.", grads.engine.name, grads.engine_reason.rstrip("."))
    optimizer = _build_optimizer(config, model)
    scheduler = _build_scheduler(config, optimizer, total)
    parts = Parts(model, grads, combiner, optimizer, scheduler, config.max_grad_norm, config.bf16)
    accumulation, threads = config.gradient_accumulation_steps, config.dataloader_num_workers
    if None in prepared.sizes.values():
        threads = min(threads, 1)  # a stream is read in order
    maker = batch_maker(config, prepared)
    loader = BatchLoader(sampler, maker, accumulation, threads, config.dataloader_prefetch_factor)
    return Run(config, prepared, parts, loader, accelerator.device, total)


def build_model(config: TrainConfig, trained: Path | None = None) -> Any:
    """Load the model a configuration names.

    Args:
        config: The configuration.
        trained: Folder of a run or checkpoint whose weights are wanted.

    Returns:
        The model, on the CPU.
    """
    # The frozen base may be in half precision; what is trained is in float32.
    half = config.bf16 and config.finetuning_type == "lora"
    return load_model(
        config.model_name_or_path,
        lora=_lora(config),
        dtype=torch.bfloat16 if half else torch.float32,
        trained=trained,
        trust_remote_code=config.trust_remote_code,
    )


def _build_optimizer(config: TrainConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Build AdamW over what is trained, and log how much that is."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    sizes = [sum(p.numel() for p in group) for group in (trainable, list(model.parameters()))]
    logger.info("%d of %d parameters are trained.", *sizes)
    return torch.optim.AdamW(
        trainable,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )


def _build_scheduler(config: TrainConfig, optimizer: torch.optim.Optimizer, total: int) -> LRScheduler:
    """Build the schedule of the learning rate."""
    warmup = config.warmup_steps
    steps = math.ceil(warmup * total) if warmup < 1 else int(warmup)
    try:
        return get_scheduler(config.lr_scheduler_type, optimizer, steps, total)
    except ValueError as error:
        raise InputError(f"`lr_scheduler_type: {config.lr_scheduler_type}`: {error}") from error


def _lora(config: TrainConfig) -> LoraSettings | None:
    """Read the LoRA settings; None for full fine-tuning."""
    if config.finetuning_type == "full":
        return None
    target = "all" if config.lora_target == ["all"] else tuple(config.lora_target)
    return LoraSettings(config.lora_rank, config.lora_alpha or 2 * config.lora_rank, config.lora_dropout, target)
