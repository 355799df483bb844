"""Rounding of shares to whole rows, so that no task is ever a whole row off its share."""

import math
from collections.abc import Sequence


class Quota:
    """Round shares to whole rows, so that after every draw each task has its share to within one row."""

    # What a task is owed, the sum of its shares minus the rows it was given, is carried from draw to draw. Rows left
    # after rounding down go to the tasks that would soonest be owed a whole row. With constant shares this is the
    # chairman assignment rule: Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980.

    def __init__(self, num_tasks: int) -> None:
        self.owed = [0.0] * num_tasks

    def take(self, shares: Sequence[float], rows: int, most: int | None = None) -> list[int]:  # [tasks] -> [tasks]
        """Divide the rows of one draw among the tasks, among at most `most` of them."""
        owed = [before + share * rows for before, share in zip(self.owed, shares, strict=True)]
        able = [t for t, share in enumerate(shares) if share > 0]
        if most is not None and most < len(able):
            able = sorted(able, key=lambda t: (-owed[t], t))[:most]
        # Where only some tasks share the draw, what they are owed is scaled to fill it.
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
        """Add or remove one row of as many tasks as needed, and return the number of rows added."""
        if left > 0:
            # Tijdeman: among the tasks whose remainder is at least 1 / (2n - 2), take the one that reaches a whole row
            # soonest, which is (1 - 1 / (2n - 2) - remainder) / share draws from now.
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
