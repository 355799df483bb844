"""Mixings whose shares never change: from the sizes of the tasks, or as the user says."""

from typing import Any

from mtl_opt.data.mixing.base import Facts, Mixer, check_argument, normalised
from mtl_opt.errors import InputError, UnknownNameError


class Balanced(Mixer):
    """Give every task the same fixed slots in every draw, since gradient methods need every task in every step."""

    summary = "the same number of rows of every task in every step"

    def __init__(self, facts: Facts) -> None:
        self.found = [1 / len(facts.tasks)] * len(facts.tasks)

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the shares never change
        """Give every task the same share."""
        return self.found


class Equal(Mixer):
    """Give every task the same share over time; without `tasks_per_step` the same rows as `balanced`."""

    summary = "the same share for every task"

    def __init__(self, facts: Facts) -> None:
        self.found = [1 / len(facts.tasks)] * len(facts.tasks)

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the shares never change
        """Give every task the same share."""
        return self.found


class Proportional(Mixer):
    """Give a task a share like its number of rows: what concatenating all files comes to."""

    summary = "shares like the numbers of rows"

    def __init__(self, facts: Facts) -> None:
        self.found = normalised(facts.known_sizes("proportional"))

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the shares never change
        """Give shares like the sizes."""
        return self.found


class Sqrt(Mixer):
    """Give a task a share like the square root of its number of rows."""

    summary = "shares like the square roots of the numbers of rows"

    def __init__(self, facts: Facts) -> None:
        self.found = normalised([size**0.5 for size in facts.known_sizes("sqrt")])

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the shares never change
        """Give shares like the roots of the sizes."""
        return self.found


class Temperature(Mixer):
    """Give a task a share like `min(scale * rows, cap) ** (1 / temperature)`.

    Args:
        facts: What is known of the data.
        temperature: 1 is proportional (up to the cap), 2 the square root; the larger, the more even.
        cap: Rows beyond it do not count; None for no cap.
        scale: Multiplies the rows before they are capped.

    References:
        Raffel et al., "Exploring the limits of transfer learning", JMLR 2020, section 3.5.2.
    """

    summary = "min(scale * rows, cap) ** (1 / temperature)"

    def __init__(self, facts: Facts, temperature: float = 2.0, cap: float | None = None, scale: float = 1.0) -> None:
        power = 1 / check_argument("temperature", temperature, 1e-3)
        factor = check_argument("scale", scale, 1e-12)
        limit = float("inf") if cap is None else check_argument("cap", cap, 1)
        counted = [min(factor * size, limit) for size in facts.known_sizes("temperature")]
        largest = max(counted)
        self.found = normalised([(size / largest) ** power for size in counted])

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the shares never change
        """Give shares by temperature."""
        return self.found


class Inverse(Mixer):
    """Give a task a share like one over its number of rows: small tasks come first."""

    summary = "shares like one over the numbers of rows"

    def __init__(self, facts: Facts) -> None:
        self.found = normalised([1 / size for size in facts.known_sizes("inverse")])

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the shares never change
        """Give shares like one over the sizes."""
        return self.found


class UniMax(Mixer):
    """Share the rows of the run evenly, but repeat no task more than `max_epochs` times.

    Args:
        facts: What is known of the data and the run.
        max_epochs: Most passes through a task.
        budget: Rows of the whole run; None for those the run draws.

    References:
        Chung et al., "UniMax: fairer and more effective language sampling", ICLR 2023, algorithm 1.
    """

    summary = "even, but no task more than max_epochs times"

    def __init__(self, facts: Facts, max_epochs: float = 1.0, budget: float | None = None) -> None:
        epochs = check_argument("max_epochs", max_epochs, 1e-6)
        left = float(facts.total_steps * facts.rows_per_step) if budget is None else check_argument("budget", budget, 1)
        sizes = facts.known_sizes("unimax")
        rows = [0.0] * len(sizes)
        for done, task in enumerate(sorted(range(len(sizes)), key=lambda t: sizes[t])):
            rows[task] = min(left / (len(sizes) - done), epochs * sizes[task])
            left -= rows[task]
        self.found = normalised(rows)

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the shares never change
        """Give the shares of the budget."""
        return self.found


class Ratios(Mixer):
    """Give the shares that the user names, under `ratios` or as `ratio` of every task in a registry."""

    summary = "the shares given in `ratios`"

    def __init__(self, facts: Facts) -> None:
        self.found = checked_ratios(facts.ratios, facts.tasks, "`ratios`")

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the shares never change
        """Give the user's shares."""
        return self.found


def checked_ratios(ratios: Any, tasks: list[str], where: str) -> list[float]:
    """Check shares by task."""
    if not isinstance(ratios, dict) or not ratios:
        raise InputError(f"{where} must give a share for every task ({', '.join(tasks)}), got {ratios!r}.")
    for task in ratios:
        if task not in tasks:
            raise UnknownNameError(f"task in {where}:", task, tasks)
    missing = [task for task in tasks if task not in ratios]
    if missing:
        raise InputError(f"{where}: task `{missing[0]}` has no share; give one for each of {', '.join(tasks)}.")
    found = [check_argument(f"ratios.{task}", ratios[task], 0, 1) for task in tasks]
    if abs(sum(found) - 1) > 1e-6:
        raise InputError(f"{where} must sum up to 1, got {sum(found):.6g}.")
    return normalised(found)
