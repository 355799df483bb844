"""The combiner of a run: from the configuration to an object bound to its tasks."""

import inspect
from collections.abc import Mapping
from typing import Any

from mtl_opt.combiners import COMBINERS, Combiner
from mtl_opt.data import TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients
from mtl_opt.training.config import TrainConfig


def build_combiner(config: TrainConfig, tasks: list[str], settings: Mapping[str, TaskSettings]) -> Combiner:
    """Build the combiner a configuration names.

    Args:
        config: `combiner` and `combiner_args`; a random method takes the run's `seed` where it has no argument.
        tasks: Names of the tasks of the run.
        settings: What the data says of each: `weight` for `Weighted` and `role` for methods that know main tasks.

    Returns:
        The combiner, bound to the tasks.

    Raises:
        InputError: If an argument is unknown or not allowed.
    """
    cls = COMBINERS[config.combiner]
    arguments: dict[str, Any] = dict(config.combiner_args)
    accepted = inspect.signature(cls).parameters
    if "seed" in accepted:
        arguments.setdefault("seed", config.seed)
    if "task_weights" in accepted:
        arguments.setdefault("task_weights", {t: settings[t].weight for t in tasks})
    main = [task for task in tasks if settings[task].role == "main"]
    if "main" in accepted and 0 < len(main) < len(tasks):
        arguments.setdefault("main", main)
    unknown = [name for name in arguments if name not in accepted]
    if unknown:
        allowed = ", ".join(accepted) or "none"
        raise InputError(f"`combiner_args`: `{config.combiner}` has no argument `{unknown[0]}`. Allowed: {allowed}.")
    try:
        combiner = cls(**arguments)
        combiner.bind(tasks)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # torch has its own for a number too large
        raise InputError(f"`combiner_args` of `{config.combiner}`: {error}") from error
    return combiner


def check_layers(combiner: Combiner, grads: TaskGradients) -> None:
    """Refuse layers that the model does not have before the first step asks for them.

    Args:
        combiner: What names layers in `over`.
        grads: What knows the layers.

    Raises:
        InputError: If there is no such layer.
    """
    try:
        grads.buffer.gramian_over(combiner.over)
    except (TypeError, ValueError) as error:
        raise InputError(f"`combiner_args`: the layers of `{type(combiner).__name__}`: {error}") from error
