"""The task gradients of a run, as configured and as its combiner needs them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mtl_opt.combiners import Combiner
from mtl_opt.data import TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.gradients import LossScaler, TaskGradients
from mtl_opt.gradients.step.loss_roots import read_losses
from mtl_opt.gradients.step.window import WindowLengthError
from mtl_opt.models import private_parameters, trial_ids, try_rows, weight_adapters
from mtl_opt.training.config.keys import BUFFER_DTYPES
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.details import details
from mtl_opt.training.setup.model_settings import autocast, autocast_dtype, engine_of

DEFAULT_WINDOW = 100
"""Steps of the running statistics where nothing else is asked for and the rows are those of adapters."""


def task_weights(tasks: Sequence[str], settings: Mapping[str, TaskSettings]) -> dict[str, float]:
    """Return the factor of each task's gradient; at least one must be above 0, and one task alone has 1."""
    if len(tasks) == 1:
        return {tasks[0]: 1.0}
    found = {task: settings[task].weight if task in settings else 1.0 for task in tasks}
    if not any(found.values()):
        raise InputError(f"`weight` is 0 for every task ({', '.join(tasks)}); at least one must be above 0.")
    return found


def build_gradients(
    config: TrainConfig, model: Any, tasks: Sequence[str], combiner: Combiner, settings: Mapping[str, TaskSettings]
) -> TaskGradients:
    """Build the task gradients for a model and a combiner's requirements; "auto" falls back where `one_pass` fails."""
    engine, why = engine_of(config)
    adapted = weight_adapters(model) if engine == "auto" else None
    if adapted is not None:
        engine, why = "per_task", f"the adapter of `{adapted}` is added to its weights, so that no layer sees its rows"
    grads = _gradients_of(config, engine, model, tasks, combiner, settings)
    try:
        _try_engine(config, model, grads)
    except ValueError as error:
        if engine != "auto":
            raise InputError(f"`gradient_engine: {config.gradient_engine}`: {error}") from error
        del grads  # before the rows of the other engine take their memory
        grads, why = _gradients_of(config, "per_task", model, tasks, combiner, settings), str(error)
    grads.engine_reason = (why or grads.engine_reason).rstrip(".")
    details.info("Gradient engine %s: %s.", grads.engine.name, grads.engine_reason)
    return grads


def _gradients_of(
    config: TrainConfig,
    engine: str,
    model: Any,
    tasks: Sequence[str],
    combiner: Combiner,
    settings: Mapping[str, TaskSettings],
) -> TaskGradients:
    """Build the task gradients with an engine."""
    window = _window_of(config, engine)
    if combiner.requires == "window":
        if config.gradient_window not in {None, 0, combiner.window}:
            raise InputError(f"`gradient_window: {window}` is not that of `denoised: {combiner.window}`.")
        window = combiner.window
    if engine == "two_pass" and combiner.requires in {"jacobian", "window"}:
        raise InputError(
            f"`gradient_engine: two_pass` keeps no rows, which `combiner: {config.combiner}` needs; use `one_pass`."
        )
    try:
        return TaskGradients(
            model,
            tasks,
            engine,
            private=private_parameters(model),
            loss_reduction=config.loss_reduction,  # type: ignore[arg-type]  # checked by its key
            task_weights=task_weights(tasks, settings),
            verify=config.verify_gradients,
            halves=combiner.requires == "halves",
            window=window,
            buffer_dtype=BUFFER_DTYPES[config.gradient_buffer_dtype],
            buffer_device="cpu" if config.gradient_buffer_device == "cpu" else None,
            scaler=LossScaler() if config.fp16 else None,
        )
    except ValueError as error:
        key = "gradient_window" if isinstance(error, WindowLengthError) else "gradient_engine"
        raise InputError(f"`{key}: {getattr(config, key)}`: {error}") from error


def _try_engine(config: TrainConfig, model: Any, grads: TaskGradients) -> None:
    """Read and differentiate a few tokens with the engine, so that what it cannot honour shows at once."""
    if not grads.engine.wires or grads.halves is not None:
        return
    device, ids = next(model.parameters()).device, trial_ids(model, grads.num_tasks)
    try:
        with grads.rows(ids):
            with autocast(device, autocast_dtype(config)):
                outputs = try_rows(model, ids)
            if grads.engine.name == "one_pass" and outputs.requires_grad:
                sums = outputs.float().square().mean(dim=(1, 2))
                losses = sums.new_zeros(grads.num_tasks).index_add(0, ids, sums)
                ones = torch.ones(grads.num_tasks, device=device)
                grads.engine.backward(read_losses(losses, grads.tasks).scaled(ones), sorted({0, grads.num_tasks - 1}))
    except (NotImplementedError, RuntimeError):
        if device.type != "meta":  # a plan has no numbers, which some layers look at
            raise
    finally:
        grads.zero()


def _window_of(config: TrainConfig, engine: str) -> int:
    """Choose the number of steps of the running statistics: on by default where a second buffer is small."""
    if config.gradient_window is not None:
        return config.gradient_window
    small = config.finetuning_type == "lora" and engine != "two_pass" and config.fsdp != "full"
    return DEFAULT_WINDOW if small else 0
