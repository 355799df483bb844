"""The model of a run, with adapters, way of sharing and heads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_opt.data import TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients
from mtl_opt.models import (
    TaskOptions,
    build_sharing,
    load_base,
    load_model,
    load_sharing,
    put_heads,
    share,
)
from mtl_opt.models.loading import heads_to_start_from
from mtl_opt.training.config.keys import ModelKeys
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.details import details
from mtl_opt.training.setup.model_settings import adapter_settings, base_dtype, quantization_settings
from mtl_opt.training.setup.private_options import dropout_of_one


def build_model(
    config: TrainConfig,
    tasks: Sequence[str],
    settings: Mapping[str, TaskSettings | TaskOptions] | None = None,
    trained: Path | None = None,
    heads: Mapping[str, Any] | None = None,
) -> Any:
    """Load the configured model with its adapters, way of sharing and heads."""
    shape: dict[str, Any] = {
        "dtype": base_dtype(config),
        "trust_remote_code": config.trust_remote_code,
        "quantization": quantization_settings(config),
    }
    if config.sharing == "hard":  # one adapter is what peft has
        build_sharing(config.sharing, config.sharing_args)
        lora = dropout_of_one(adapter_settings(config), tasks, settings or {})
        return load_model(config.model_name_or_path, lora=lora, trained=trained, heads=heads, **shape)
    model = load_base(config.model_name_or_path, heads=heads is not None, **shape)
    put_sharing(config, model, tasks, settings)
    start = config.adapter_name_or_path if trained is None else None
    source = trained if start is None else Path(start)
    if source is not None:
        load_sharing(model, source, config.sharing, tasks)
    trained = trained or heads_to_start_from(start, heads is not None)
    return model if heads is None else put_heads(model, heads, config.model_name_or_path, trained)


def put_sharing(
    keys: ModelKeys,
    model: Any,
    tasks: Sequence[str],
    settings: Mapping[str, TaskSettings | TaskOptions] | None = None,
) -> None:
    """Wrap a base model in the configured way of sharing."""
    options = {
        task: TaskOptions(one.dropout, one.penalty, one.group, one.role)
        for task, one in (settings or {}).items()
        if task in tasks
    }
    lora = adapter_settings(keys)
    assert lora is not None  # the configuration was checked
    try:
        share(model, build_sharing(keys.sharing, keys.sharing_args), tasks, lora, options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"`sharing: {keys.sharing}`: {error}") from error


def parameter_counts(grads: TaskGradients) -> dict[str, int]:
    """Count the trained numbers: shared by all tasks, and private to each."""
    shared = sum(p.numel() for p in grads.buffer.parameters.values())
    own = {f"params_{t}": sum(p.numel() for p in g) for t, g in zip(grads.tasks, grads.private.groups, strict=True)}
    return {"params_shared": shared, **own}


def log_sharing(sharing: str, grads: TaskGradients) -> None:
    """Log what is shared, and that there is nothing to combine where nothing is."""
    counts = parameter_counts(grads)
    shared = counts.pop("params_shared")
    own = ", ".join(f"{key.removeprefix('params_')} {count}" for key, count in counts.items())
    details.info("Sharing %s: %d numbers shared; private: %s.", sharing, shared, own)
    if not shared:
        details.info("Nothing is shared, so there is nothing to combine: each task takes its own gradient.")
