"""The task gradients of a run, as configured and as its combiner needs them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_opt.combiners import Combiner
from mtl_opt.data import TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.gradients import LossScaler, TaskGradients
from mtl_opt.gradients.step.window import WindowLengthError
from mtl_opt.models import private_parameters, try_rows
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
    """Build the task gradients for a model and a combiner's requirements."""
    engine, why = engine_of(config)
    weights = task_weights(tasks, settings)
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
        grads = TaskGradients(
            model,
            tasks,
            engine,
            private=private_parameters(model),
            loss_reduction=config.loss_reduction,  # type: ignore[arg-type]  # checked by its key
            task_weights=weights,
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
    details.info("Gradient engine %s: %s.", grads.engine.name, (why or grads.engine_reason).rstrip("."))
    return grads


def check_engine(config: TrainConfig, model: Any, grads: TaskGradients) -> None:
    """Run a few tokens through the layers that the engine has replaced, so that what it cannot honour shows at once."""
    if not grads.engine.wires or grads.halves is not None:
        return
    device = next(model.parameters()).device
    try:
        with grads.engine.open(), autocast(device, autocast_dtype(config)):
            try_rows(model, grads.num_tasks)
    except ValueError as error:
        raise InputError(f"`gradient_engine: {config.gradient_engine}`: {error}") from error


def _window_of(config: TrainConfig, engine: str) -> int:
    """Choose the number of steps of the running statistics: on by default where a second buffer is small."""
    if config.gradient_window is not None:
        return config.gradient_window
    small = config.finetuning_type == "lora" and engine != "two_pass" and config.fsdp != "full"
    return DEFAULT_WINDOW if small else 0
