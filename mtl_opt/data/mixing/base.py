"""What a mixing is, what it is told, and rounding shares to rows so that they mean what they say."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mtl_opt.checks import number
from mtl_opt.errors import InputError


@dataclass(frozen=True)
class Facts:
    """Say what a mixing may know of the data and the run.

    Attributes:
        sizes: Rows of each task, in order; None for a stream.
        total_steps: Steps of the whole run.
        rows_per_step: Rows that one step draws in all.
        seed: Seed of the run.
        lengths: Mean number of tokens of each task's rows; empty where not known.
        ratios: Shares that the user gives.
    """

    sizes: Mapping[str, int | None]
    total_steps: int = 1
    rows_per_step: int = 1
    seed: int = 0
    lengths: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.sizes)

    def known_sizes(self, mixing: str) -> list[int]:
        """Give the sizes to a mixing that cannot do without.

        Args:
            mixing: Its name, for the error.

        Returns:
            Rows of each task.

        Raises:
            InputError: If a task is a stream.
        """
        for task, size in self.sizes.items():
            if size is None:
                raise InputError(f"`mixing: {mixing}` needs the number of rows, and task `{task}` is a stream.")
        return [size for size in self.sizes.values() if size is not None]


class Mixer(ABC):
    """Say which share of the rows of each step every task gets; final classes take `facts` and their own arguments.

    Attributes:
        summary: One line for `mtl-opt list mixing`.
        learns: Whether shares depend on losses of earlier steps.
    """

    summary: ClassVar[str]
    learns: ClassVar[bool] = False

    @abstractmethod
    def shares(self, step: int) -> list[float]:  # [tasks]
        """Give the shares of a step; called once per step, in order.

        Args:
            step: Number of the step, from 0.

        Returns:
            Shares that sum up to 1. `[tasks]`
        """

    def observe(self, losses: Mapping[str, float], step: int) -> None:  # noqa: B027 - most learn nothing
        """Take the losses of a step that was taken; only mixings that learn do.

        Args:
            losses: Mean loss of every task that was present.
            step: Number of the step, from 0.
        """

    def state_dict(self) -> dict[str, Any]:
        """Describe what is learnt or counted, in plain values that JSON can hold.

        Returns:
            What `load_state_dict` takes.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most have no state
        """Go on from a state.

        Args:
            state: What `state_dict` gave.
        """


def normalised(weights: Sequence[float]) -> list[float]:
    """Scale weights to shares."""
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def with_floor(shares: Sequence[float], floor: float) -> list[float]:
    """Give a part of the rows to all tasks alike, so that none disappears."""
    return [(1 - floor) * share + floor / len(shares) for share in shares]


def check_argument(name: str, value: Any, low: float, high: float | None = None) -> float:
    """Check a number that a mixing takes."""
    return number(low, high)(f"mixing_args.{name}", value)


class Quota:
    """Round shares to whole rows, so that after every draw each task has its share to within a row.

    What a task is owed, the sum of its shares minus the rows it was given, is carried from draw to draw; what is left
    over after whole rows goes to the tasks that would soonest be owed a whole row. With constant shares this is the
    chairman assignment rule of Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980.

    Args:
        num_tasks: Number of tasks.
    """

    def __init__(self, num_tasks: int) -> None:
        self.owed = [0.0] * num_tasks

    def take(self, shares: Sequence[float], rows: int, most: int | None = None) -> list[int]:
        """Divide the rows of one draw."""
        owed = [before + share * rows for before, share in zip(self.owed, shares, strict=True)]
        able = [t for t, share in enumerate(shares) if share > 0]
        if most is not None and most < len(able):
            able = sorted(able, key=lambda t: (-owed[t], t))[:most]
        # Those with the most are scaled to the whole draw where few tasks share it.
        scale = rows / sum(max(owed[t], 0.0) for t in able) if len(able) < sum(s > 0 for s in shares) else 1.0
        wanted = {t: max(owed[t], 0.0) * scale for t in able}
        given = {t: math.floor(wanted[t] + 1e-9) for t in able}
        left = rows - sum(given.values())
        while left != 0:
            left -= self._even_out(given, wanted, shares, left)
        self.owed = [before - given.get(t, 0) for t, before in enumerate(owed)]
        return [given.get(t, 0) for t in range(len(shares))]

    @staticmethod
    def _even_out(given: dict[int, int], wanted: dict[int, float], shares: Sequence[float], left: int) -> int:
        """Give one row more (or one less) to as many tasks as are needed; return how many rows that was."""
        if left > 0:  # first those that are soonest owed a whole row
            least = 1 / max(1, 2 * len(shares) - 2)
            rest = {t: wanted[t] - given[t] for t in given}
            soonest = sorted(given, key=lambda t: (rest[t] < least, (1 - least - rest[t]) / shares[t], t))[:left]
            for t in soonest:
                given[t] += 1
            return len(soonest)
        richest = sorted((t for t in given if given[t]), key=lambda t: (wanted[t] - given[t], t))[:-left]
        for t in richest:
            given[t] -= 1
        return -len(richest)
