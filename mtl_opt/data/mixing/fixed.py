"""Mixings with constant shares: derived from the sizes of the tasks, or configured."""

from collections.abc import Sequence
from typing import Any

from mtl_opt.data.mixing.base import Facts, Mixer, check_argument, normalised
from mtl_opt.errors import InputError, UnknownNameError


class FixedMixer(Mixer):
    """Keep the same shares in every step.

    Args:
        weights: What the shares are proportional to. `[tasks]`
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.fixed = normalised(weights)

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the shares never change
        """Return the same shares in every step."""
        return self.fixed


class Balanced(FixedMixer):
    """Give every task the same number of rows in every draw, since gradient methods need every task in every step."""

    summary = "the same number of rows of every task in every step"

    def __init__(self, facts: Facts) -> None:
        super().__init__([1.0] * len(facts.tasks))


class Equal(FixedMixer):
    """Give every task the same share over time; without `tasks_per_step` this draws the same rows as `balanced`."""

    summary = "the same share for every task"

    def __init__(self, facts: Facts) -> None:
        super().__init__([1.0] * len(facts.tasks))


class Proportional(FixedMixer):
    """Make shares proportional to the numbers of rows, as if all files were concatenated."""

    summary = "shares like the numbers of rows"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts.known_sizes("proportional"))


class Sqrt(FixedMixer):
    """Make shares proportional to the square roots of the numbers of rows."""

    summary = "shares like the square roots of the numbers of rows"

    def __init__(self, facts: Facts) -> None:
        super().__init__([size**0.5 for size in facts.known_sizes("sqrt")])


class Temperature(FixedMixer):
    """Make shares proportional to `min(scale * rows, cap) ** (1 / temperature)`.

    Args:
        facts: Facts of the data.
        temperature: 1 is proportional (up to the cap), 2 the square root; the larger, the more even.
        cap: Largest number of rows that counts; None for no cap.
        scale: Factor of the numbers of rows before they are capped.

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
        # Divided by the largest first, so that no power overflows.
        super().__init__([(size / largest) ** power for size in counted])


class Inverse(FixedMixer):
    """Make shares inversely proportional to the numbers of rows, in favour of small tasks."""

    summary = "shares like one over the numbers of rows"

    def __init__(self, facts: Facts) -> None:
        super().__init__([1 / size for size in facts.known_sizes("inverse")])


class UniMax(FixedMixer):
    """Divide the rows of the run evenly, but repeat no task more than `max_epochs` times.

    Args:
        facts: Facts of the data and the run.
        max_epochs: Largest number of passes through a task.
        budget: Rows of the whole run; None for the number that the run draws.

    References:
        Chung et al., "UniMax: fairer and more effective language sampling", ICLR 2023, algorithm 1.
    """

    summary = "even, but no task more than max_epochs times"

    def __init__(self, facts: Facts, max_epochs: float = 1.0, budget: float | None = None) -> None:
        epochs = check_argument("max_epochs", max_epochs, 1e-6)
        left = float(facts.total_steps * facts.rows_per_step) if budget is None else check_argument("budget", budget, 1)
        sizes = facts.known_sizes("unimax")
        rows = [0.0] * len(sizes)
        # From the smallest task on: what it cannot use of its even part of the budget is left to the larger ones.
        for done, task in enumerate(sorted(range(len(sizes)), key=lambda t: sizes[t])):
            rows[task] = min(left / (len(sizes) - done), epochs * sizes[task])
            left -= rows[task]
        super().__init__(rows)


class Ratios(FixedMixer):
    """Use the configured shares: `ratios`, or `ratio` of every task in a registry."""

    summary = "the shares given in `ratios`"

    def __init__(self, facts: Facts) -> None:
        super().__init__(check_ratios(facts.ratios, facts.tasks, "`ratios`"))


def check_ratios(ratios: Any, tasks: list[str], where: str) -> list[float]:  # [tasks]
    """Check configured shares, and return them in the order of the tasks, scaled to sum to 1."""
    if not isinstance(ratios, dict) or not ratios:
        raise InputError(f"{where} must give a share for every task ({', '.join(tasks)}), got {ratios!r}.")
    for task in ratios:
        if task not in tasks:
            raise UnknownNameError(f"task in {where}:", task, tasks)
    missing = [task for task in tasks if task not in ratios]
    if missing:
        raise InputError(f"{where}: task `{missing[0]}` has no share; give one for each of {', '.join(tasks)}.")
    found = [check_argument(f"ratios.{task}", ratios[task], 0) for task in tasks]
    if not any(found):
        raise InputError(f"{where} must give at least one task a share above 0.")
    return normalised(found)
