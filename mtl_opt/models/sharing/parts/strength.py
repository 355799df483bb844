"""Strengths of penalties that change over a run."""

import math

from mtl_opt.checks import named, positive

SCHEDULES = ("constant", "linear", "cosine")
"""How a strength goes from its first to its last value."""


class Schedule:
    """Move a strength over a run: `first + (last - first) · progress`, or along half a cosine.

    Args:
        schedule: One of `SCHEDULES`.
        strength: First value, and the only one of "constant".
        final_strength: Value at the end of the run.

    Raises:
        ValueError: If the schedule is unknown, or a strength is not allowed.
    """

    def __init__(self, schedule: str, strength: float, final_strength: float | None) -> None:
        named("schedule", schedule, SCHEDULES)
        if (schedule == "constant") != (final_strength is None):
            rule = "goes with" if schedule == "constant" else "is needed by"
            raise ValueError(f"`final_strength` {rule} a `schedule` of linear or cosine, got {schedule!r}.")
        self.schedule = schedule
        self.first = positive("strength", strength, zero=True)
        self.last = self.first if final_strength is None else positive("final_strength", final_strength, zero=True)

    def at(self, step: int, total_steps: int) -> float:
        """Read the strength of a step."""
        progress = (step - 1) / (total_steps - 1) if total_steps > 1 else 0.0
        if self.schedule == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.first + (self.last - self.first) * progress
