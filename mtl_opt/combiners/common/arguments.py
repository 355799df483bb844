"""Arguments that differ from task to task or name tasks: checked at once, resolved when the tasks are bound."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

TaskKey = str | int
"""A task by name or by index."""

Numbers = float | Mapping[str, float] | Sequence[float]
"""One number for all tasks, one per task by name, or one per task in order."""


def finite_numbers(name: str, given: Numbers) -> np.ndarray:  # [] or [n]
    """Return the numbers of an argument as an array; raise where one is not finite."""
    values = np.asarray(list(given.values()) if isinstance(given, Mapping) else given, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` must be finite, got {given}.")
    return values


def check_preference(given: Mapping[str, float] | Sequence[float] | None) -> None:
    """Raise for a preference that is not positive and finite."""
    values = list(given.values()) if isinstance(given, Mapping) else list([] if given is None else given)
    if not all(0 < v < float("inf") for v in values):
        raise ValueError(f"`preference` must be positive finite numbers, got {given}.")


def task_indices(argument: str, given: TaskKey | Sequence[TaskKey], tasks: Sequence[str]) -> list[int]:
    """Resolve an argument that names tasks to their indices."""
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


def numbers_per_task(argument: str, given: Numbers, tasks: Sequence[str]) -> Tensor:  # [tasks]
    """Resolve an argument to one number per task: given for all, by name, or in task order."""
    if isinstance(given, Mapping):
        if set(given) != set(tasks):
            raise ValueError(f"`{argument}` must name the tasks {list(tasks)}, got {list(given)}.")
        given = [given[task] for task in tasks]
    values = [float(given)] * len(tasks) if isinstance(given, int | float) else list(given)
    if len(values) != len(tasks):
        raise ValueError(f"`{argument}` must be {len(tasks)} numbers, one per task, got {len(values)}.")
    return torch.tensor(values, dtype=torch.float64)


def keep_numbers(combiner: nn.Module, buffer: str, argument: str, given: Numbers, tasks: Sequence[str] | None) -> None:
    """Resolve an argument of a combiner to one number per task, and keep it as a buffer."""
    assert tasks is not None
    combiner.register_buffer(buffer, numbers_per_task(argument, given, tasks))


def keep_preference(combiner: nn.Module, preference: Numbers | None, tasks: Sequence[str] | None) -> None:
    """Resolve a preference, by default the same for all tasks, and keep it as the buffer `preferred`."""
    keep_numbers(combiner, "preferred", "preference", 1.0 if preference is None else preference, tasks)
