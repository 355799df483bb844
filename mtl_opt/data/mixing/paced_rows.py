"""A curriculum inside a task: rows sorted by difficulty, of which more and more are open to be drawn."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_opt.checks import choice, number
from mtl_opt.errors import InputError

SHAPES = ("linear", "sqrt", "step")
ROW_ORDERS = ("easy_first", "hard_first")
MEASURES = ("length", "loss")
COLUMN = "column:"


@dataclass(frozen=True)
class RowPacing:
    """Describe a curriculum of rows.

    Attributes:
        rows: What makes a row hard: `length` (tokens), `loss` (loss before training) or `column:NAME` of the data.
        order: Which rows are open first: easy_first or hard_first.
        start: Share of a task's rows that is open in the first step.
        steps: Share of the run after which all rows are open.
        shape: How the open share grows: linear, sqrt (fast, then slow), or step (all at once in the end).
    """

    rows: str
    order: str = "easy_first"
    start: float = 0.2
    steps: float = 0.5
    shape: str = "linear"

    @property
    def column(self) -> str | None:
        """The column of the data that holds the difficulty; None where none does."""
        return self.rows.removeprefix(COLUMN) if self.rows.startswith(COLUMN) else None

    def open_share(self, step: int, total_steps: int) -> float:
        """Compute the share of rows that is open in a step, in hundredths.

        Args:
            step: Number of the step, from 0.
            total_steps: Steps of the run.

        Returns:
            A share, 1 from `steps` of the run on.
        """
        progress = step / (self.steps * total_steps)
        if progress >= 1:
            return 1.0
        grown = {
            "linear": self.start + (1 - self.start) * progress,
            "sqrt": math.sqrt(self.start**2 + (1 - self.start**2) * progress),
            "step": self.start,
        }[self.shape]
        # So a checkpoint holds at most a hundred numbers per task.
        return max(self.start, math.floor(round(100 * grown, 6)) / 100)


def split_row_pacing(arguments: Mapping[str, Any]) -> tuple[RowPacing | None, dict[str, Any]]:
    """Split the curriculum of rows from the arguments of the mixing.

    Args:
        arguments: `mixing_args` as configured.

    Returns:
        The curriculum, None where there is none, and the arguments that are left for the mixing. `mixing: curriculum`
        has an `order` and a `pacing` of its own; those of rows are told by their values.

    An `InputError` says which value is not allowed.
    """
    left = dict(arguments)
    rows = left.pop("rows", None)
    if rows is None:
        return None, left
    found: dict[str, Any] = {"rows": _measure(rows)}
    if left.get("order") in ROW_ORDERS:
        found["order"] = left.pop("order")
    if isinstance(left.get("pacing"), Mapping):
        found |= _pacing(left.pop("pacing"))
    return RowPacing(**found), left


def _measure(value: Any) -> str:
    """Check what makes a row hard."""
    text = str(value)
    if text in MEASURES or (text.startswith(COLUMN) and text != COLUMN):
        return text
    raise InputError(f"`mixing_args.rows` must be length, loss or column:NAME, got {value!r}.")


def _pacing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check the pacing of rows."""
    checks = {"start": number(0, 1, above=True), "steps": number(0, 1, above=True), "shape": choice(*SHAPES)}
    for key in values:
        if key not in checks:
            raise InputError(f"`mixing_args.pacing` has no `{key}`. Allowed: {', '.join(checks)}.")
    return {key: checks[key](f"mixing_args.pacing.{key}", value) for key, value in values.items()}


class PacedRows:
    """Draw the rows of one task out of those that are open, each once before any comes again.

    Rows that open while a pass is under way join it. What is drawn depends on seed, task, scores and the draws at which
    rows opened, which are the whole state.

    Args:
        task: Name of the task.
        size: Number of its rows.
        seed: Seed of the run.
        pacing: The curriculum.
        total_steps: Steps of the run.
        scores: Difficulty of every row; None while it is unknown: rows are then in a random order. `[rows]`
    """

    def __init__(
        self, task: str, size: int, seed: int, pacing: RowPacing, total_steps: int, scores: Any | None = None
    ) -> None:
        self.task, self.size, self.seed = task, size, seed
        self.pacing, self.total_steps = pacing, total_steps
        self.sorted: list[int] = []
        self.opened: list[list[int]] = []  # pairs: the draw from which on so many rows are open
        self.rank([0.0] * size if scores is None else scores)

    def rank(self, scores: Any) -> None:  # [rows]
        """Sort the rows by difficulty.

        Args:
            scores: Difficulty of every row; NaN counts as the hardest. `[rows]`
        """
        ties = list(range(self.size))
        random.Random(f"{self.seed}/ties/{self.task}").shuffle(ties)
        values = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=np.inf)[ties]
        values = -values if self.pacing.order == "hard_first" else values
        self.sorted = np.asarray(ties)[np.argsort(values, kind="stable")].tolist()
        self._rewind()

    def open(self, drawn: int, step: int) -> None:
        """Open as many rows as the step allows.

        Args:
            drawn: Rows of the task that were drawn before the step.
            step: Number of the step, from 0.
        """
        wanted = max(1, math.ceil(round(self.size * self.pacing.open_share(step, self.total_steps), 6)))
        if self.opened and self.opened[-1][1] >= wanted:
            return
        if self.opened and self.opened[-1][0] == drawn:
            self.opened[-1][1] = wanted
        else:
            self.opened.append([drawn, wanted])

    def row(self, position: int) -> int:
        """Return the row of a draw.

        Args:
            position: Rows of the task that were drawn before.

        Returns:
            Its index within the task.
        """
        if position < self.at:
            self._rewind()
        while self.at < position:
            self._next()
        return self._next()

    def load(self, opened: list[list[int]]) -> None:
        """Go on from a state.

        Args:
            opened: `opened` of the order that was saved.
        """
        self.opened = [list(pair) for pair in opened]
        self._rewind()

    def _rewind(self) -> None:
        """Go back to the first draw."""
        self.at = self.open_rows = self.event = self.passes = 0
        self.left: list[int] = []
        self.chance = random.Random()

    def _next(self) -> int:
        """Draw one row of those that are left of the pass."""
        while self.event < len(self.opened) and self.opened[self.event][0] <= self.at:
            now = self.opened[self.event][1]
            self.left += self.sorted[self.open_rows : now] if self.passes else []
            self.open_rows, self.event = now, self.event + 1
        if not self.left:
            self.left = self.sorted[: self.open_rows]
            self.chance = random.Random(f"{self.seed}/{self.passes}/{self.task}/paced")
            self.passes += 1
        place = self.chance.randrange(len(self.left))
        self.left[place], self.left[-1] = self.left[-1], self.left[place]
        self.at += 1
        return self.left.pop()
