"""The base class of mixings, and the facts they may know of data and run."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mtl_opt.checks import number
from mtl_opt.errors import InputError


@dataclass(frozen=True)
class Facts:
    """Collect what a mixing may know of the data and the run.

    Attributes:
        sizes: Number of rows of each task, in the order of the tasks; None for a stream.
        total_steps: Optimizer steps of the whole run.
        rows_per_step: Rows of all tasks in one step.
        seed: Seed of the run.
        lengths: Mean number of tokens of each task's rows; empty where unknown.
        ratios: Shares configured by the user.
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
        """Return the sizes, for a mixing that needs all of them.

        Args:
            mixing: Name of the mixing, for the error.

        Returns:
            Number of rows of each task. `[tasks]`

        Raises:
            InputError: If a task is a stream.
        """
        for task, size in self.sizes.items():
            if size is None:
                raise InputError(f"`mixing: {mixing}` needs the number of rows, and task `{task}` is a stream.")
        return [size for size in self.sizes.values() if size is not None]


class Mixer(ABC):
    """Decide each task's share of the rows of a step; final classes take `facts` and their own arguments.

    Attributes:
        summary: One line for `mtl-opt list mixing`.
        learns: Whether shares depend on the losses of earlier steps.
    """

    summary: ClassVar[str]
    learns: ClassVar[bool] = False

    @abstractmethod
    def shares(self, step: int) -> list[float]:  # [tasks]
        """Return the shares of a step; called once per step, in order.

        Args:
            step: Number of the step, from 0.

        Returns:
            Shares that sum to 1. `[tasks]`
        """

    def observe(self, losses: Mapping[str, float], step: int) -> None:  # noqa: B027 - most learn nothing
        """Learn from the losses of a step; does nothing in mixings that do not learn.

        Args:
            losses: Mean loss of every task that was present, in nats.
            step: Number of the step, from 0.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what is learnt or counted, as JSON values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most have no state
        """Restore a state that `state_dict` returned."""


def normalised(weights: Sequence[float]) -> list[float]:
    """Scale weights to sum to 1."""
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def with_floor(shares: Sequence[float], floor: float) -> list[float]:
    """Distribute the part `floor` of the rows evenly, so that no task disappears."""
    return [(1 - floor) * share + floor / len(shares) for share in shares]


def check_argument(name: str, value: Any, low: float, high: float | None = None) -> float:
    """Check a numeric argument of a mixing."""
    return number(low, high)(f"mixing_args.{name}", value)
