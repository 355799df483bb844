"""Arguments that speak of tasks: by name, or by index."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

TaskKey = str | int


def task_indices(argument: str, given: TaskKey | Sequence[TaskKey], tasks: Sequence[str]) -> list[int]:
    """Find the tasks that an argument names.

    Args:
        argument: Name of the argument, for the error.
        given: One task or several, each by name or by index.
        tasks: Names of all tasks, in order.

    Returns:
        Their indices, in the order of `given`.

    Raises:
        ValueError: If there is no such task, one occurs twice, or none is given.
    """
    keys = [given] if isinstance(given, (str, int)) else list(given)
    found = []
    for key in keys:
        by_index = isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(tasks)
        if not by_index and key not in tasks:
            raise ValueError(f"`{argument}` must name tasks of {list(tasks)} or their indices, got {key!r}.")
        found.append(int(key) if by_index else list(tasks).index(str(key)))
    if not found or len(set(found)) != len(found):
        raise ValueError(f"`{argument}` must be at least one task, each once, got {given!r}.")
    return found


def checked_preference(given: Mapping[str, float] | Sequence[float] | None) -> None:
    """Refuse a preference that is not positive and finite.

    Args:
        given: One number per task, by name or in task order; None: none is stated.

    Raises:
        ValueError: If a number is not positive and finite.
    """
    values = list(given.values()) if isinstance(given, Mapping) else list([] if given is None else given)
    if any(not math.isfinite(v) or v <= 0 for v in values):
        raise ValueError(f"`preference` must be positive finite numbers, got {given}.")


def task_preference(
    given: Mapping[str, float] | Sequence[float] | None, default: float, tasks: Sequence[str]
) -> np.ndarray:  # [tasks]
    """Resolve a preference to one number per task.

    Args:
        given: One number per task, by name or in task order; None: `default` for each.
        default: What every task gets where nothing is given.
        tasks: Names of all tasks, in order.

    Returns:
        The numbers. `[tasks]`

    Raises:
        ValueError: If the names or the number of the numbers are not those of the tasks.
    """
    if given is None:
        return np.full(len(tasks), default)
    if isinstance(given, Mapping):
        if set(given) != set(tasks):
            raise ValueError(f"`preference` must name the tasks {list(tasks)}, got {list(given)}.")
        given = [given[name] for name in tasks]
    if len(given) != len(tasks):
        raise ValueError(f"`preference` must be {len(tasks)} numbers, one per task, got {len(given)}.")
    return np.array([float(v) for v in given])
