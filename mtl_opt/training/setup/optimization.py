"""Keys of a configuration → optimizer, over groups of parameters, and schedule of the learning rate."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from mtl_opt.data import TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients
from mtl_opt.training.config.keys import OptimizationKeys
from mtl_opt.training.optimizers import build_optimizer
from mtl_opt.training.setup.private_options import decay_of_one


def optimizer_for(
    keys: OptimizationKeys, model: Any, grads: TaskGradients, settings: Mapping[str, TaskSettings]
) -> Optimizer:
    """Build the optimizer of everything that is trained."""
    return build_optimizer(
        keys.optim,
        parameter_groups(model, grads, settings, keys.learning_rate, keys.weight_decay),
        learning_rate=keys.learning_rate,
        weight_decay=keys.weight_decay,
        betas=(keys.adam_beta1, keys.adam_beta2),
        epsilon=keys.adam_epsilon,
    )


def parameter_groups(
    model: Any, grads: TaskGradients, settings: Mapping[str, TaskSettings], learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Group the trained parameters by decay and rate; a task's `weight_decay` holds for its private parameters."""
    if not hasattr(model, "sharing"):
        weight_decay = decay_of_one(grads.tasks, settings, weight_decay)
    options = model.sharing.optimizer_options() if hasattr(model, "sharing") else {}
    decays = {key: one["weight_decay"] for key, one in options.items() if "weight_decay" in one}
    for task, parameters in zip(grads.tasks, grads.private.groups, strict=True):
        decay = settings[task].weight_decay if task in settings else None
        if decay is not None:
            decays |= {id(p): decay for p in parameters}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            factor = options.get(id(parameter), {}).get("learning_rate_factor", 1.0)
            groups.setdefault((decays.get(id(parameter), weight_decay), factor), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, **({} if factor == 1 else {"lr": learning_rate * factor})}
        for (decay, factor), parameters in groups.items()
    ]


def build_scheduler(keys: OptimizationKeys, optimizer: Optimizer, total: int) -> LRScheduler:
    """Build the schedule of the learning rate; a warm-up below 1 is a share of all steps."""
    warmup = keys.warmup_steps
    steps = math.ceil(warmup * total) if warmup < 1 else int(warmup)
    try:
        return get_scheduler(keys.lr_scheduler_type, optimizer, steps, total)
    except ValueError as error:
        raise InputError(f"`lr_scheduler_type: {keys.lr_scheduler_type}`: {error}") from error
