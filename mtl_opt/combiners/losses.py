"""What methods of the losses share: the checks of their input, and a softmax that cannot overflow."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mtl_opt.combiners.base import Combiner, Step

SMALLEST_LOSS = 1e-30
"""A positive loss counts as at least this, so that no weight leaves the range of float32."""


def needed_losses(combiner: Combiner, step: Step) -> np.ndarray:  # [present]
    """Give the losses of a step to a method that cannot do without.

    Args:
        combiner: The method, named in the error.
        step: The checked input.

    Returns:
        The losses of the present tasks. `[present]`

    Raises:
        ValueError: If no losses were passed.
    """
    if step.losses is None:
        raise ValueError(f"`{type(combiner).__name__}` needs `losses` [tasks], got None.")
    return step.losses.numpy()


def non_negative_losses(
    combiner: Combiner,
    step: Step,
    least: np.ndarray | float = 0.0,  # [present]
) -> np.ndarray:  # [present]
    """Give the losses above their smallest possible value to a method that takes their ratios or logarithms.

    Args:
        combiner: The method, named in the error.
        step: The checked input.
        least: The smallest value each loss can take. `[present]`

    Returns:
        The losses of the present tasks above `least`. `[present]`

    Raises:
        ValueError: If no losses were passed, or one is below its smallest value.
    """
    losses = needed_losses(combiner, step)
    bounds = np.broadcast_to(least, losses.shape)
    for task, loss, bound in zip(step.tasks, losses, bounds, strict=True):
        if loss < bound:
            name = combiner.tasks[task] if combiner.tasks else task
            raise ValueError(
                f"The loss of task `{name}` must be at least {bound:g} for {type(combiner).__name__}, got {loss:g}."
            )
    return losses - bounds


def softmax(values: np.ndarray, temperature: float = 1.0) -> np.ndarray:  # [n] -> [n]
    """Turn numbers into shares of one.

    Args:
        values: Any finite numbers. `[n]`
        temperature: What they are divided by; small ones leave only the largest.

    Returns:
        Positive shares that add up to 1. `[n]`
    """
    with np.errstate(over="ignore"):  # a share that overflows here is 0
        shares = np.exp((values - values.max()) / temperature)
    return shares / shares.sum()


def numbers_per_task(
    name: str, given: float | Mapping[str, float] | Sequence[float], tasks: Sequence[str]
) -> Tensor:  # [tasks]
    """Give every task its number: one for all, by name, or in task order.

    Args:
        name: Name of the argument.
        given: Its value.
        tasks: Names of all tasks.

    Returns:
        One number per task. `[tasks]`

    Raises:
        ValueError: If the names or the number of the values are not those of the tasks.
    """
    if isinstance(given, Mapping):
        if set(given) != set(tasks):
            raise ValueError(f"`{name}` must name the tasks {list(tasks)}, got {list(given)}.")
        given = [given[task] for task in tasks]
    values = [float(given)] * len(tasks) if isinstance(given, int | float) else list(given)
    if len(values) != len(tasks):
        raise ValueError(f"`{name}` must be {len(tasks)} numbers, one per task, got {len(values)}.")
    return torch.tensor(values, dtype=torch.float64)


def check_finite(name: str, given: float | Mapping[str, float] | Sequence[float]) -> None:
    """Refuse numbers that no task could have, before the tasks are known.

    Args:
        name: Name of the argument.
        given: Its value.

    Raises:
        ValueError: If a number is not finite.
    """
    values = list(given.values()) if isinstance(given, Mapping) else given
    if not np.isfinite(np.asarray(values, dtype=float)).all():
        raise ValueError(f"`{name}` must be finite, got {given}.")


def shares(preference: np.ndarray) -> np.ndarray:  # [present] -> [present]
    """Scale a preference to add up to 1 over the present tasks.

    Args:
        preference: A positive number per present task. `[present]`

    Returns:
        The same, adding up to 1. `[present]`
    """
    relative = preference / preference.max()  # first to at most 1: a sum of large numbers could overflow
    return relative / relative.sum()


def count_of(name: str, value: int, least: int) -> int:
    """Refuse an argument that is not a whole number of at least `least`.

    Args:
        name: Name of the argument.
        value: Its value.
        least: The smallest allowed value.

    Returns:
        The value.

    Raises:
        ValueError: If it is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
    return value
