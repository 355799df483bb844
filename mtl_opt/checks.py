"""Checks of values: configuration keys, registry entries, constructor arguments; one sentence for a bad one.

Checks of what users write (`Check`) convert the value, since YAML reads `1e-4` as text, and raise `InputError`. Checks
of arguments (from `at_least` on) convert nothing and raise `ValueError`, with the same words.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from mtl_opt.errors import InputError, UnknownNameError

Check = Callable[[str, Any], Any]
"""Maps a key and its value to the converted value, or raises `InputError`."""


def setting(check: Check, text: str, default: Any = None) -> Any:
    """Declare one key of the configuration."""
    metadata = {"check": check, "text": text}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def whole(low: int, high: int | None = None) -> Check:
    """Check a whole number from `low` to `high`, both included."""

    def check(key: str, value: Any) -> int:
        number_ = _number(key, value, "a whole number")
        if number_ != int(number_):
            raise InputError(f"`{key}` must be a whole number, got {value}.")
        return int(_within(key, int(number_), low, high))

    return check


def number(low: float, high: float | None = None, *, above: bool = False, below: bool = False) -> Check:
    """Check a finite number in a range; `above` and `below` exclude its ends."""

    def check(key: str, value: Any) -> float:
        found = float(_within(key, _number(key, value, "a number"), low, high))
        if (above and found == low) or (below and found == high):
            raise InputError(f"`{key}` must be {_range(low, high, above, below)}, got {value}.")
        return found

    return check


def steps(key: str, value: Any) -> float:
    """Check a number of steps, or a share below 1 of all steps."""
    found = _number(key, value, "a number of steps")
    return found if 0 < found < 1 else whole(1)(key, value)


def one_of(*allowed: int) -> Check:
    """Check a whole number against the allowed ones."""

    def check(key: str, value: Any) -> int:
        if _number(key, value, "a whole number") not in allowed:
            raise InputError(f"`{key}` must be {' or '.join(map(str, allowed))}, got {value}.")
        return int(value)

    return check


def choice(*names: str) -> Check:
    """Check one of several names; the error proposes the nearest."""

    def check(key: str, value: Any) -> str:
        if value not in names:
            raise UnknownNameError(f"value of `{key}`:", value, names)
        return str(value)

    return check


def text(key: str, value: Any) -> str:
    """Check a non-empty text."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"`{key}` must be a non-empty text, got {value!r}.")
    return value


def flag(key: str, value: Any) -> bool:
    """Check a truth value."""
    if not isinstance(value, bool):
        raise InputError(f"`{key}` must be true or false, got {value!r}.")
    return value


def mapping(key: str, value: Any) -> dict[str, Any]:
    """Check a mapping and convert its keys to text."""
    if not isinstance(value, Mapping):
        raise InputError(f"`{key}` must be a mapping `name: value`, got {value!r}.")
    return {str(name): entry for name, entry in value.items()}


def name_list(key: str, value: Any) -> list[str]:
    """Check a list of names, possibly empty; one text is split at its commas."""
    entries = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(entries, Sequence) or not all(isinstance(entry, str) and entry for entry in entries):
        raise InputError(f"`{key}` must be a list of names, got {value!r}.")
    return list(entries)


def names(key: str, value: Any) -> list[str]:
    """Check a list of at least one name without repetition."""
    entries = name_list(key, value)
    if not entries:
        raise InputError(f"`{key}` must be a list of names, got {value!r}.")
    if len(set(entries)) != len(entries):
        raise InputError(f"`{key}` names something twice: {', '.join(entries)}.")
    return entries


def whole_numbers(low: int, high: int) -> Check:
    """Check a list of different whole numbers, or a single one."""

    def check(key: str, value: Any) -> list[int]:
        entries = value if isinstance(value, list | tuple) else [value]
        found = [whole(low, high)(key, entry) for entry in entries]
        if not found or len(set(found)) != len(found):
            raise InputError(f"`{key}` must be different whole numbers, got {value!r}.")
        return found

    return check


def either(first: Check, second: Check) -> Check:
    """Accept a value that passes either check; report the error of the first where neither does."""

    def check(key: str, value: Any) -> Any:
        try:
            return first(key, value)
        except InputError as error:
            try:
                return second(key, value)
            except InputError:
                raise error from None

    return check


def at_least(name: str, value: Any, smallest: int) -> int:
    """Check that an argument is a whole number of at least `smallest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ValueError(f"`{name}` must be a whole number of at least {smallest}, got {value!r}.")
    return value


def positive(name: str, value: Any, *, zero: bool = False) -> float:
    """Check that an argument is a finite number above 0, or also 0; a tensor of one number counts as one."""
    try:
        found = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found) or found < 0 or (found == 0 and not zero):
        raise ValueError(f"`{name}` must be a number {'of at least' if zero else 'above'} 0, got {value!r}.")
    return found


def named(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Check that an argument is one of several names."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}.")
    return str(value)


def fraction(name: str, value: Any) -> float:
    """Check that an argument, such as the decay of a moving average, is at least 0 and below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"`{name}` must be at least 0 and below 1, got {value!r}.")
    return float(value)


def _number(key: str, value: Any, kind: str) -> float:
    """Convert to a finite number; YAML reads `1e-4` as text."""
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"`{key}` must be {kind}, got {value!r}.")
    return found


def _within(key: str, value: float, low: float, high: float | None) -> float:
    """Return the number if it lies in the range, both ends included."""
    if value < low or (high is not None and value > high):
        raise InputError(f"`{key}` must be {_range(low, high, False, False)}, got {value}.")
    return value


def _range(low: float, high: float | None, above: bool, below: bool) -> str:
    """Describe a range in words."""
    begin = f"greater than {low:g}" if above else f"at least {low:g}"
    return begin if high is None else f"{begin} and {'less than' if below else 'at most'} {high:g}"
