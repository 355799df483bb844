"""Arguments with a number for every task, checked before the tasks are known."""

from collections.abc import Mapping, Sequence

import numpy as np

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
