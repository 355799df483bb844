"""Exceptions for what a user can get wrong: the command line answers with their one sentence."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Report bad input: what, where, which value, what is allowed. The command line prints it and exits with 2."""


class DivergedError(InputError):
    """Report a loss, gradient, weight or metric that is not finite, in a run whose data and settings are readable."""


class UnknownNameError(InputError):
    """Report a name that is not among the allowed ones, with the nearest allowed name.

    Args:
        kind: What the name stands for, such as "combiner".
        name: The name that was given.
        allowed: The names that exist.
        listed: Where they are listed, when they are too many for a sentence; then the nearest five are named.
    """

    def __init__(self, kind: str, name: object, allowed: Iterable[object], listed: str | None = None) -> None:
        names = sorted(str(a) for a in allowed)
        near = get_close_matches(str(name), names, n=1 if listed is None else 5, cutoff=0.5)
        hint = f" Did you mean {' or '.join(f'`{a}`' for a in near)}?" if near else ""
        rest = f"Allowed: {', '.join(names)}." if listed is None else f"All are listed by {listed}."
        super().__init__(f"Unknown {kind} `{name}`.{hint} {rest}")


def first_line(error: Exception) -> str:
    """Return the first line of another library's error, to be quoted inside a sentence."""
    return str(error).strip().split("\n")[0].rstrip(".:")
