"""The order of one task's rows: a new permutation each epoch, optionally stratified by label or grouped by length."""

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

POOL = 50
"""Batches whose rows are sorted by length together: enough for even batches, few enough to stay random."""


@dataclass(frozen=True)
class RowOrder:
    """Order the rows of one task, independently of all other tasks.

    Attributes:
        task: Name of the task.
        size: Number of its rows; None for a stream, whose rows come in their own order.
        seed: Seed of the run.
        rows_per_draw: Rows of one batch, for grouping.
        labels: Label of each row as a number, to stratify by; None not to. `[rows]`
        lengths: Number of tokens of each row, to group by; None not to. `[rows]`
    """

    task: str
    size: int | None
    seed: int
    rows_per_draw: int = 1
    labels: Any = None
    lengths: Any = None

    def permutation(self, epoch: int) -> Sequence[int]:
        """Return the order of one epoch.

        Args:
            epoch: Number of the task's epoch, from 0.

        Returns:
            A permutation of the task's row indices. `[rows]`
        """
        order = list(range(self.size or 0))
        # random.Random hashes a text by SHA-512: the same in every process, unlike hash().
        chance = random.Random(f"{self.seed}/{epoch}/{self.task}")
        chance.shuffle(order)
        if self.labels is not None:
            order = stratified(order, self.labels)
        if self.lengths is not None:
            order = grouped(order, self.lengths, self.rows_per_draw, chance)
        return array("q", order)


def stratified(order: Sequence[int], labels: Any) -> list[int]:  # [rows], [rows] -> [rows]
    """Spread every label evenly over an order, so that each stretch contains the labels in proportion."""
    rows = np.asarray(order)
    codes = np.asarray(labels)[rows]
    when = np.empty(len(rows))
    for number, code in enumerate(np.unique(codes)):
        mine = np.flatnonzero(codes == code)
        # Row i of n comes at (i + 1/2) / n of the epoch; the offset breaks ties between labels of the same size.
        when[mine] = (np.arange(len(mine)) + 0.5) / len(mine) + number * 1e-12
    return rows[np.argsort(when, kind="stable")].tolist()


def grouped(order: Sequence[int], lengths: Any, rows_per_draw: int, chance: random.Random) -> list[int]:
    """Put rows of similar length into the same batch, batches in a random order."""
    size = rows_per_draw * POOL
    batches = []
    for start in range(0, len(order), size):
        pool = sorted(order[start : start + size], key=lambda row: (int(lengths[row]), row))
        batches += [pool[i : i + rows_per_draw] for i in range(0, len(pool), rows_per_draw)]
    # An incomplete last batch stays last: elsewhere, every batch after it would straddle two groups.
    tail = [batches.pop()] if batches and len(batches[-1]) < rows_per_draw else []
    chance.shuffle(batches)
    return [row for batch in (*batches, *tail) for row in batch]
