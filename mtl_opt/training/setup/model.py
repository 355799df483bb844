"""The way of sharing of a run: built into the model, its parameters counted, saved and loaded."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mtl_opt.data import TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients
from mtl_opt.models import (
    SHARING,
    MultiTaskModel,
    TaskOptions,
    build_sharing,
    load_base,
    load_model,
    load_sharing,
    put_heads,
    save_heads,
    save_sharing,
    share,
)
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.details import details
from mtl_opt.training.setup.model_settings import adapter_settings, base_dtype, quantization_settings

logger = logging.getLogger(__name__)


def build_model(
    config: TrainConfig,
    tasks: Sequence[str],
    settings: Mapping[str, TaskSettings | TaskOptions] | None = None,
    trained: Path | None = None,
    heads: Mapping[str, Any] | None = None,
) -> Any:
    """Load the model a configuration names, with its way of sharing in it."""
    shape: dict[str, Any] = {
        "dtype": base_dtype(config),
        "trust_remote_code": config.trust_remote_code,
        "quantization": quantization_settings(config),
    }
    _note_penalties(config, tasks, settings or {})
    if config.sharing == "hard":  # one adapter is what peft has
        build_sharing(config.sharing, config.sharing_args)
        lora = adapter_settings(config)
        return load_model(config.model_name_or_path, lora=lora, trained=trained, heads=heads, **shape)
    model = load_base(config.model_name_or_path, heads=heads is not None, **shape)
    put_sharing(config, model, tasks, settings)
    if trained is not None:
        load_sharing(model, trained, config.sharing, tasks)
    return model if heads is None else put_heads(model, heads, config.model_name_or_path, trained)


def _note_penalties(config: TrainConfig, tasks: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Say so where a task's strength of a penalty has no meaning."""
    named = [task for task in tasks if task in settings and settings[task].penalty is not None]
    if named and not SHARING[config.sharing].penalises:
        able = ", ".join(f"`{name}`" for name, cls in SHARING.items() if cls.penalises)
        logger.warning(
            "`tasks.%s.penalty` has no effect with `sharing: %s`; it goes with %s.", named[0], config.sharing, able
        )


def put_sharing(
    config: TrainConfig,
    model: Any,
    tasks: Sequence[str],
    settings: Mapping[str, TaskSettings | TaskOptions] | None = None,
) -> None:
    """Put the way of sharing of a configuration into a base model."""
    options = {
        task: TaskOptions(one.dropout, one.penalty, one.group, one.role)
        for task, one in (settings or {}).items()
        if task in tasks
    }
    lora = adapter_settings(config)
    assert lora is not None  # the configuration was checked
    try:
        share(model, build_sharing(config.sharing, config.sharing_args), tasks, lora, options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"`sharing: {config.sharing}`: {error}") from error


def save_trained(config: TrainConfig, model: Any, folder: Path, weights: Any) -> None:
    """Write what was trained: an adapter of peft, a whole model, or what the way of sharing put into it."""
    if config.sharing == "hard":
        model.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
        return
    own = model.backbone if isinstance(model, MultiTaskModel) else model
    about = {
        "sharing": config.sharing,
        "sharing_args": config.sharing_args,
        "tasks": list(model.tasks),
        "task_options": {task: asdict(options) for task, options in own.task_options.items()},
        "base_model_name_or_path": config.model_name_or_path,
        "lora_rank": config.lora_rank,
        "lora_alpha": config.lora_alpha or 2 * config.lora_rank,
    }
    save_sharing(own, folder, about)
    if isinstance(model, MultiTaskModel):
        save_heads(model, folder)


def parameter_counts(grads: TaskGradients) -> dict[str, int]:
    """Count what is trained."""
    shared = sum(p.numel() for p in grads.buffer.parameters.values())
    own = {f"params_{t}": sum(p.numel() for p in g) for t, g in zip(grads.tasks, grads.private.groups, strict=True)}
    return {"params_shared": shared, **own}


def log_sharing(config: TrainConfig, grads: TaskGradients) -> None:
    """Log what is shared, and that there is nothing to combine where nothing is."""
    counts = parameter_counts(grads)
    shared = counts.pop("params_shared")
    own = ", ".join(f"{key.removeprefix('params_')} {count}" for key, count in counts.items())
    details.info("Sharing %s: %d numbers shared; private: %s.", config.sharing, shared, own)
    if not shared:
        details.info("Nothing is shared, so there is nothing to combine: each task takes its own gradient.")


def parameter_groups(
    config: TrainConfig, model: Any, grads: TaskGradients, settings: Mapping[str, TaskSettings]
) -> list[dict[str, Any]]:
    """Group what is trained by its settings: `tasks.NAME.weight_decay` holds for the task's private parameters."""
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
            groups.setdefault((decays.get(id(parameter), config.weight_decay), factor), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, **({} if factor == 1 else {"lr": config.learning_rate * factor})}
        for (decay, factor), parameters in groups.items()
    ]
