"""Mixings whose shares depend on the step: one task at a time, a rotating main task, curricula, schedules."""

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_opt.data.mixing.base import Facts, Mixer, check_argument, normalised
from mtl_opt.data.mixing.fixed import check_ratios
from mtl_opt.data.mixing.quota import Quota
from mtl_opt.errors import InputError, UnknownNameError

PACINGS = ("linear", "root", "square", "step")
ORDERS = ("listed", "length", "loss")
BASES = ("proportional", "equal", "sqrt", "ratios")


class Homogeneous(Mixer):
    """Fill every step with rows of one task; over time tasks get their shares of the steps.

    Args:
        facts: Facts of the data.
        by: Shares of the steps: equal, proportional to the numbers of rows or their square roots (sqrt), or the
            configured `ratios`; default these where there are some, else equal.
    """

    summary = "one task per step"

    def __init__(self, facts: Facts, by: str | None = None) -> None:
        by = by or ("ratios" if facts.ratios else "equal")
        if by not in BASES:
            raise UnknownNameError("value of `mixing_args.by`:", by, BASES)
        self.base = self._base(facts, by)
        self.quota = Quota(len(self.base))

    @staticmethod
    def _base(facts: Facts, by: str) -> list[float]:  # -> [tasks]
        """Compute the shares of the steps."""
        if by == "ratios":
            return check_ratios(facts.ratios, facts.tasks, "`ratios`")
        if by == "equal":
            return normalised([1.0] * len(facts.tasks))
        return normalised(
            [size ** (0.5 if by == "sqrt" else 1) for size in facts.known_sizes(f"homogeneous, by: {by}")]
        )

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - earlier steps decide
        """Assign the whole step to the task that is owed one."""
        return [float(count) for count in self.quota.take(self.base, 1)]

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps each task is owed."""
        return {"owed": list(self.quota.owed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.quota.owed = [float(owed) for owed in state["owed"]]


class Rotation(Mixer):
    """Make one task after the other the main one for `period` steps; the others share the rest evenly.

    Args:
        facts: Facts of the data.
        period: Steps after which the main task changes.
        main_share: Share of the main task.
    """

    summary = "the main task changes every `period` steps"

    def __init__(self, facts: Facts, period: int = 10, main_share: float = 0.7) -> None:
        self.num_tasks = len(facts.tasks)
        self.period = int(check_argument("period", period, 1))
        self.main_share = 1.0 if self.num_tasks == 1 else check_argument("main_share", main_share, 0, 1)

    def shares(self, step: int) -> list[float]:
        """Assign `main_share` to the main task, and divide the rest among the others."""
        main = step // self.period % self.num_tasks
        rest = (1 - self.main_share) / max(1, self.num_tasks - 1)
        return [self.main_share if task == main else rest for task in range(self.num_tasks)]


class Curriculum(Mixer):
    """Open one task after the other; open tasks share the rows evenly.

    Args:
        facts: Facts of the data and the run.
        order: Which tasks open first: listed (as configured), length (short rows first) or loss (low loss first).
        pacing: How the open fraction grows from `start` to 1: linear, root (fast, then slow), square (slow, then
            fast), or step (at once, halfway).
        start: Fraction of the tasks that is open in the first step; None for one task.
        until: Fraction of the run after which all tasks are open.
        measure: Number of first steps with all tasks that measure their losses, with `order: loss`.
    """

    summary = "tasks join one after the other, by listed order, length or loss"
    learns = True

    def __init__(
        self,
        facts: Facts,
        order: str = "listed",
        pacing: str = "linear",
        start: float | None = None,
        until: float = 0.5,
        measure: int = 10,
    ) -> None:
        for name, value, allowed in (("order", order, ORDERS), ("pacing", pacing, PACINGS)):
            if value not in allowed:
                raise UnknownNameError(f"value of `mixing_args.{name}`:", value, allowed)
        self.tasks = facts.tasks
        self.pacing = pacing
        self.start = 0.0 if start is None else check_argument("start", start, 0, 1)
        self.until = check_argument("until", until, 1e-9, 1)
        self.measure = int(check_argument("measure", measure, 1)) if order == "loss" else 0
        self.total_steps = facts.total_steps
        self.sums = [0.0] * len(self.tasks)
        self.counts = [0] * len(self.tasks)
        self.order = list(range(len(self.tasks)))
        if order == "length":
            if not facts.lengths:
                raise InputError("`mixing: curriculum` with `order: length` needs the lengths of rows.")
            self.order.sort(key=lambda task: facts.lengths[self.tasks[task]])

    def shares(self, step: int) -> list[float]:
        """Divide the rows evenly among the open tasks."""
        if step < self.measure:
            return [1 / len(self.tasks)] * len(self.tasks)
        if self.measure:
            self.order.sort(key=lambda t: (self.sums[t] / self.counts[t] if self.counts[t] else math.inf, t))
        time = min(1.0, (step - self.measure) / max(1.0, self.until * self.total_steps))
        grown = {"linear": time, "root": time**0.5, "square": time**2, "step": float(time >= 0.5)}[self.pacing]
        part = self.start + (1 - self.start) * grown
        num_open = min(len(self.tasks), max(1, math.ceil(part * len(self.tasks) - 1e-9)))
        found = [0.0] * len(self.tasks)
        for task in self.order[:num_open]:
            found[task] = 1 / num_open
        return found

    def observe(self, losses: Mapping[str, float], step: int) -> None:
        """Accumulate the losses of the first steps."""
        if step < self.measure:
            for number, task in enumerate(self.tasks):
                if math.isfinite(losses.get(task, math.nan)):
                    self.sums[number] += losses[task]
                    self.counts[number] += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the accumulated losses of the first steps."""
        return {"sums": list(self.sums), "counts": list(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.sums, self.counts = list(state["sums"]), list(state["counts"])


class RatioSchedule(Mixer):
    """Follow configured shares at points in time.

    Args:
        facts: Facts of the data and the run.
        points: Pairs of a time, as fraction of the run in [0, 1], and the shares `{task: share}` at that time.
        interpolation: linear between the points, or piecewise constant.
    """

    summary = "shares given for points in time, linear or piecewise"

    def __init__(self, facts: Facts, points: Sequence[Any] = (), interpolation: str = "linear") -> None:
        if interpolation not in {"linear", "piecewise"}:
            raise UnknownNameError("value of `mixing_args.interpolation`:", interpolation, ("linear", "piecewise"))
        where = "`mixing_args.points`"
        if not isinstance(points, list | tuple) or not points:
            raise InputError(f"{where} must be a list of [time, {{task: share}}], got {points!r}.")
        self.times, self.values = [], []
        for point in points:
            if not isinstance(point, list | tuple) or len(point) != 2:
                raise InputError(f"{where} must be a list of [time, {{task: share}}], got the point {point!r}.")
            self.times.append(check_argument("points", point[0], 0, 1))
            self.values.append(check_ratios(point[1], facts.tasks, where))
        if self.times != sorted(set(self.times)):
            raise InputError(f"{where}: times must rise, got {', '.join(f'{time:g}' for time in self.times)}.")
        self.linear = interpolation == "linear"
        self.total_steps = facts.total_steps

    def shares(self, step: int) -> list[float]:
        """Interpolate the shares of the step; before the first and after the last point they are constant."""
        time = step / max(1, self.total_steps - 1)
        after = bisect.bisect_right(self.times, time)
        if after == 0:
            return self.values[0]
        if after == len(self.times) or not self.linear:
            return self.values[after - 1]
        first, second = self.times[after - 1 : after + 1]
        part = (time - first) / (second - first)
        return [(1 - part) * a + part * b for a, b in zip(self.values[after - 1], self.values[after], strict=True)]
