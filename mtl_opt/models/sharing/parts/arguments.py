"""Checks of the arguments of ways of sharing: argument, rule, value in one sentence."""

import math
from collections.abc import Sequence
from typing import Any


def at_least(name: str, value: Any, smallest: int) -> int:
    """Check a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ValueError(f"`{name}` must be a whole number of at least {smallest}, got {value!r}.")
    return value


def positive(name: str, value: Any, *, zero: bool = False) -> float:
    """Check a finite number above 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not zero):
        raise ValueError(f"`{name}` must be a number {'of at least' if zero else 'above'} 0, got {value!r}.")
    return float(value)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Check a name."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}.")
    return str(value)
