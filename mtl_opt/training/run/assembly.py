"""A configuration and its data → a run that stands before its first step."""

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import set_seed

from mtl_opt.models import compile_model
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.processes import is_main, rank
from mtl_opt.training.run.row_losses import sort_by_loss
from mtl_opt.training.run.shadows import Shadows
from mtl_opt.training.run.state import Run
from mtl_opt.training.run.step import Parts
from mtl_opt.training.run.step_monitor import StepMonitor
from mtl_opt.training.setup.combiner import build_combiner, check_layers, leading_combiner
from mtl_opt.training.setup.data import (
    Prepared,
    check_positions,
    check_rows_of_encoder,
    check_vocabulary,
    untrained_end,
)
from mtl_opt.training.setup.gradients import build_gradients
from mtl_opt.training.setup.loader import build_loader
from mtl_opt.training.setup.model import build_model, log_sharing
from mtl_opt.training.setup.model_settings import autocast_dtype, check_packed_rows, evaluation_settings, fit_model
from mtl_opt.training.setup.optimization import build_scheduler, optimizer_for
from mtl_opt.training.setup.private_options import refuse_idle_options
from mtl_opt.training.setup.sampler import build_sampler
from mtl_opt.training.setup.selection import selection_of
from mtl_opt.training.setup.shadow_combiners import build_shadow_combiners
from mtl_opt.training.sharding import shard

logger = logging.getLogger(__name__)


def build_run(
    config: TrainConfig, prepared: Prepared, trained: Path | None = None, device: torch.device | None = None
) -> Run:
    """Build everything that a run moves; an `InputError` names the setting that does not fit the model."""
    selection = selection_of(config, prepared)
    sampler, total = build_sampler(config, prepared)
    device = device or torch.accelerator.current_accelerator() or torch.device("cpu")
    set_seed(config.seed)  # the same in every process: all build the same adapter
    build = partial(build_model, config, prepared.tasks, prepared.settings, heads=prepared.head_specs)
    model = build(trained).to(device)
    refuse_idle_options(model, config.sharing, prepared.tasks, prepared.settings)
    fit_model(config, model)
    unseen = untrained_end(prepared, model)
    if unseen is not None and is_main():
        logger.warning("%s", unseen)
    if config.fsdp != "none":
        shard(model, config.fsdp)
    check_vocabulary(prepared, model.get_input_embeddings().num_embeddings)
    check_rows_of_encoder(prepared, model)
    check_positions(prepared, model, config.max_new_tokens)
    combiner = build_combiner(config, prepared.tasks, prepared.settings)
    shadows = Shadows(build_shadow_combiners(config, prepared, combiner), len(prepared.tasks), used=config.combiner)
    monitor = StepMonitor(shadows, config.layer_conflict, config.logging_steps, total, combiner.observes)
    grads = build_gradients(config, model, prepared.tasks, combiner, prepared.settings)
    check_layers(combiner, grads)
    if config.packing:
        check_packed_rows(config.combiner, combiner)
    log_sharing(config.sharing, grads)
    if config.torch_compile:
        compile_model(model, config.torch_compile_backend)
    optimizer = optimizer_for(config, model, grads, prepared.settings)
    parts = Parts(
        model, grads, leading_combiner(config, combiner), optimizer, build_scheduler(config, optimizer, total),
        config.max_grad_norm, autocast_dtype(config), total, monitor,
    )  # fmt: skip
    row_losses = None if trained else sort_by_loss(sampler, model, prepared, evaluation_settings(config))
    if rank() > 0:  # from here on they draw dropout masks, each its own
        set_seed(config.seed + rank())
    return Run(
        asdict(config), config, config, evaluation_settings(config), config.observe_every, prepared, parts,
        build_loader(config, prepared, sampler), device, total, build, selection,
        row_losses=row_losses,
    )  # fmt: skip
