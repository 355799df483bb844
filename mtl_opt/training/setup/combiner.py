"""The combiner of a run with its wrappers, bound to its tasks."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mtl_opt.combiners import COMBINERS, Combiner, Denoised, Every, NormMatched, Scoped, Smoothed, Sum
from mtl_opt.data import TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients
from mtl_opt.training.config.keys import GradientKeys
from mtl_opt.training.config.run_config import TrainConfig

WRAPPERS: dict[str, Callable[[Combiner, Any], Combiner]] = {
    "scope": Scoped,
    "denoised": Denoised,
    "smoothed": Smoothed,
    "every": Every,
    "norm_matched": lambda combiner, _: NormMatched(combiner),
}
"""Keys of a configuration that wrap the combiner, the innermost first; None or false: not at all."""


def build_combiner(
    config: TrainConfig, tasks: list[str], settings: Mapping[str, TaskSettings] | None = None
) -> Combiner:
    """Build the configured combiner, bound to its tasks."""
    cls = COMBINERS[config.combiner]
    known = {task: (settings or {}).get(task, TaskSettings()) for task in tasks}
    arguments: dict[str, Any] = dict(config.combiner_args)
    accepted = inspect.signature(cls).parameters
    if "seed" in accepted:
        arguments.setdefault("seed", config.seed)
    weighed = [task for task in tasks if known[task].weight != 1]
    if weighed and "task_weights" in arguments:
        raise InputError(
            f"`combiner_args.task_weights` and `weight` of task `{weighed[0]}` both weigh tasks; give the weights once."
        )
    main = [task for task in tasks if known[task].role == "main"]
    if "main" in accepted and 0 < len(main) < len(tasks):
        arguments.setdefault("main", main)
    unknown = [name for name in arguments if name not in accepted]
    if unknown:
        allowed = ", ".join(accepted) or "none"
        raise InputError(f"`combiner_args`: `{config.combiner}` has no argument `{unknown[0]}`. Allowed: {allowed}.")
    try:
        combiner = cls(**arguments)
        combiner.bind(tasks)  # before it is wrapped: what a name does not fit is the combiner's own
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # torch has its own for a number too large
        raise InputError(f"`combiner_args` of `{config.combiner}`: {error}") from error
    combiner = _wrap(combiner, config)
    combiner.bind(tasks)
    return combiner


def _wrap(combiner: Combiner, keys: GradientKeys) -> Combiner:
    """Apply the configured wrappers to a combiner, the innermost first."""
    for key, wrap in WRAPPERS.items():
        value = getattr(keys, key)
        if value is None or value is False:
            continue
        try:
            combiner = wrap(combiner, value)
        except ValueError as error:
            raise InputError(f"`{key}: {str(value).lower()}` with `combiner: {keys.combiner}`: {error}") from error
    return combiner


def leading_combiner(keys: GradientKeys, combiner: Combiner) -> Combiner:
    """Choose the combiner whose update is taken: with `monitor_only` the plain sum."""
    if not keys.monitor_only:
        return combiner
    plain = Sum()
    plain.bind(combiner.tasks or ())
    return plain


def check_layers(combiner: Combiner, grads: TaskGradients) -> None:
    """Refuse layers that the model does not have before the first step."""
    try:
        grads.buffer.columns.layers_over(combiner.over)
    except (TypeError, ValueError) as error:
        raise InputError(f"`combiner_args`: the layers of `{type(combiner).__name__}`: {error}") from error
