"""Everything a run moves: built from a configuration, saved to and restored from a checkpoint."""

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from mtl_opt.batch import TaskBatch
from mtl_opt.errors import InputError
from mtl_opt.models import compile_model
from mtl_opt.training.config.run_config import TrainConfig, precision_of
from mtl_opt.training.optimizers import build_optimizer
from mtl_opt.training.processes import rank
from mtl_opt.training.run.step import Parts
from mtl_opt.training.run.step_monitor import build_monitor, leading_combiner
from mtl_opt.training.setup.combiner import build_combiner, check_layers
from mtl_opt.training.setup.data import Prepared, check_positions, check_vocabulary
from mtl_opt.training.setup.gradients import build_gradients, check_engine
from mtl_opt.training.setup.loader import BatchLoader, build_loader
from mtl_opt.training.setup.model import build_model, log_sharing, parameter_groups
from mtl_opt.training.setup.model_settings import check_rows, fit_model
from mtl_opt.training.setup.sampler import build_sampler
from mtl_opt.training.sharding import shard

logger = logging.getLogger(__name__)


@dataclass
class Totals:
    """Count over the whole run, also across a resume.

    Attributes:
        conflicts: Sum of the conflict rates of all steps with at least one pair of gradients.
        measured: Number of these steps.
        loss: Sum of the mean task loss of every step.
        seconds: Time spent in steps.
        skipped: Steps in which float16 overflowed.
        evaluating: Time spent in evaluation.
    """

    conflicts: float = 0.0
    measured: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    skipped: int = 0
    evaluating: float = 0.0


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
        begin: When this process began with it, on the clock of `time.perf_counter`.
        known_seconds: Seconds in steps and evaluation that a checkpoint brought.
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
    begin: float = field(default_factory=time.perf_counter)
    known_seconds: float = 0.0

    def overhead(self) -> float:
        """Measure what this process has spent on the run outside of steps and evaluation."""
        busy = self.totals.seconds + self.totals.evaluating - self.known_seconds
        return max(0.0, time.perf_counter() - self.begin - busy)

    def next_batches(self) -> list[TaskBatch]:
        """Draw the micro-batches of the next step."""
        return [batch.to(self.device) for batch in self.loader.next()]


def build_run(
    config: TrainConfig, prepared: Prepared, trained: Path | None = None, device: torch.device | None = None
) -> Run:
    """Build model, task gradients, combiner, optimizer, scheduler and sampler.

    An `InputError` says which setting does not fit the model.
    """
    sampler, total = build_sampler(config, prepared)
    device = device or torch.accelerator.current_accelerator() or torch.device("cpu")
    set_seed(config.seed)  # the same in every process: all build the same adapter
    model = build_model(config, prepared.tasks, prepared.settings, trained, prepared.head_specs).to(device)
    fit_model(config, model)
    if config.fsdp != "none":
        shard(model, config.fsdp)
    check_vocabulary(prepared, model.get_input_embeddings().num_embeddings)
    check_positions(prepared, model, config.max_new_tokens)
    combiner = build_combiner(config, prepared.tasks, prepared.settings)
    monitor = build_monitor(config, prepared, combiner, total)
    grads = build_gradients(config, model, prepared.tasks, combiner)
    check_layers(combiner, grads)
    check_engine(config, model, grads)
    check_rows(config, combiner)
    log_sharing(config, grads)
    if config.torch_compile:
        compile_model(model, config.torch_compile_backend)
    optimizer = build_optimizer(
        config.optim,
        parameter_groups(config, model, grads, prepared.settings),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(config.adam_beta1, config.adam_beta2),
        epsilon=config.adam_epsilon,
    )
    scheduler = _build_scheduler(config, optimizer, total)
    led_by, precision = leading_combiner(config, combiner), precision_of(config)
    parts = Parts(model, grads, led_by, optimizer, scheduler, config.max_grad_norm, precision, total, monitor)
    if rank() > 0:  # from here on they draw dropout masks, each its own
        set_seed(config.seed + rank())
    return Run(config, prepared, parts, build_loader(config, prepared, sampler), device, total)


def _build_scheduler(config: TrainConfig, optimizer: torch.optim.Optimizer, total: int) -> LRScheduler:
    """Build the schedule of the learning rate."""
    warmup = config.warmup_steps
    steps = math.ceil(warmup * total) if warmup < 1 else int(warmup)
    try:
        return get_scheduler(config.lr_scheduler_type, optimizer, steps, total)
    except ValueError as error:
        raise InputError(f"`lr_scheduler_type: {config.lr_scheduler_type}`: {error}") from error
