"""Arguments that speak of tasks: by name, or by index."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_opt.combiners.common.arguments import Numbers

TaskKey = str | int


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


def keep_preference_and_ideal(
    combiner: nn.Module, preference: Numbers | None, reference: Numbers, tasks: Sequence[str] | None
) -> None:
    """Resolve the preference and the ideal losses of a method and keep them as buffers `preferred` and `ideal`."""
    keep_numbers(combiner, "preferred", "preference", 1.0 if preference is None else preference, tasks)
    keep_numbers(combiner, "ideal", "reference", reference, tasks)
