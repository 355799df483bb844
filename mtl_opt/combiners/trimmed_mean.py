"""The mean of every coordinate without its extremes."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NoReturn

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import at_least
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.columns import Work, block_width, over_columns, refuse_non_finite_rows
from mtl_opt.combiners.common.row_memory import no_weights
from mtl_opt.combiners.inputs import detached_rows

PRECISE = 32
"""Extremes of a block of columns may be this many times as large as its largest result to be added and taken away: so
many units of the last digit of that result the rounding is off at most, times a few."""


class TrimmedMean(Combiner):
    r"""Average every coordinate over the tasks without its largest and its smallest values.

    With $g_{(1)} \le \dots \le g_{(m)}$ the sorted values of a coordinate over the $m$ present tasks:

    $$ d = \frac{1}{m - 2k} \sum_{i = k + 1}^{m - k} g_{(i)} $$

    Where the extremes of a block of columns are not much larger than its result they are added and taken away again;
    elsewhere, and for $k > 1$, they are knocked out by pairwise comparisons and never added, so that an outlier of any
    size leaves no trace.

    Scale: mean. It is no weighted sum of the rows: `weights` raises.

    Undefined: it needs $m > 2k$; a step with fewer present tasks takes the mean.

    Cost: for 8 tasks about 3 reads of the Jacobian with $k = 1$, a little more where extremes are large, and 4 to 5
    with $k = 2$ (one thread of a CPU), in blocks of columns.

    Departures: the paper states the share $\beta = k / m$ in place of $k$. There the rows are the same gradient
    estimated by several workers; between tasks nothing says that the outlier is wrong.

    Args:
        num_trimmed: Number $k$ of values left out at either end, at least 0.

    Raises:
        ValueError: If `num_trimmed` is out of range.

    References:
        Yin, Chen, Ramchandran, Bartlett, `Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates
        <https://arxiv.org/abs/1803.01498>`_, ICML 2018, definition 2, Algorithm 1.

    Examples:
        >>> TrimmedMean()(torch.tensor([[1.0, -9.0], [2.0, 3.0], [90.0, 5.0]]))
        tensor([2., 3.])
    """

    requires = "jacobian"
    scale: ClassVar[str] = "mean"
    paper = "Yin et al., Byzantine-Robust Distributed Learning, ICML 2018, https://arxiv.org/abs/1803.01498"

    def __init__(self, num_trimmed: int = 1) -> None:
        super().__init__()
        self.num_trimmed = at_least("num_trimmed", num_trimmed, 0)

    @override
    def forward(self, jacobian: Tensor, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None) -> Tensor:
        rows = detached_rows(jacobian)
        step = self.enter(torch.zeros(len(rows), len(rows)), losses, tasks)
        rounds = self.num_trimmed if len(rows) > 2 * self.num_trimmed else 0
        if rounds < self.num_trimmed:
            needed = 2 * self.num_trimmed + 1
            self.note(f"{len(rows)} present tasks are fewer than the {needed} it needs: the step takes the mean")
        combined, size = trimmed_mean(rows, rounds)
        if not bool(torch.isfinite(size)):
            assert self.tasks is not None
            refuse_non_finite_rows(rows, [self.tasks[t] for t in step.tasks])
        return combined.to(jacobian.dtype)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> NoReturn:
        raise no_weights("TrimmedMean", "it leaves out other tasks in every coordinate")


def trimmed_mean(
    rows: Tensor,  # [tasks, params]
    rounds: int,
) -> tuple[Tensor, Tensor]:  # [params], []
    """Average every column without its extremes; also return a number that is not finite where a row is not."""
    share = rows.new_full((len(rows) - 2 * rounds,), 1 / (len(rows) - 2 * rounds))
    if not rounds:
        combined = share @ rows
        return combined, combined.sum()
    combined, width, half = rows.new_empty(rows.shape[1]), block_width(rows), len(rows) // 2
    blocks = combined.split(width)  # all views at once: making them one by one costs a tenth of the whole
    parts = [part.split(width, dim=1) for part in (rows[:half], rows[half : 2 * half], rows[2 * half :])]
    # Elsewhere than on the CPU, looking at a block would wait for it.
    whole = rows.split(width, dim=1) if rounds == 1 and rows.device.type == "cpu" else None

    def build() -> Work:
        layouts: dict[int, Tournament] = {}  # by width: the last block is narrower

        precise = whole is not None

        def work(at: slice) -> Tensor:
            nonlocal precise
            columns, index = at.stop - at.start, at.start // width
            if precise:
                assert whole is not None
                largest = subtracted(whole[index], blocks[index])
                if largest is not None:
                    return largest
                precise = False  # blocks of one Jacobian are alike: the rest is not tried
            if columns not in layouts:
                layouts[columns] = Tournament(len(rows), columns, rounds, rows)
            layout = layouts[columns]
            layout.play(*(part[index] for part in parts))
            torch.mv(layout.rest, share, out=blocks[index])
            return layout.extremes()

        return work

    return combined, over_columns(rows, build)


def subtracted(
    block: Tensor,  # [rows, width]
    out: Tensor,  # [width]
) -> Tensor | None:  # []
    """Average without the extremes by subtracting them from the sum of all values, where that is precise."""
    high, low = block.amax(0), block.amin(0)
    largest = torch.maximum(high.amax(), -low.amin())
    share = 1 / (len(block) - 2)
    torch.mv(block.T, block.new_full((len(block),), share), out=out)
    out.sub_(high.add_(low), alpha=share)
    return largest if bool(largest <= PRECISE * torch.maximum(out.amax(), -out.amin())) else None


class Tournament:
    """Set aside the largest and the smallest values of every column by pairwise comparisons of whole rows.

    All comparisons of a block of columns are laid out once, with the memory they need: slicing tensors anew for each
    block would take as long as the comparisons.

    Args:
        num_rows: Rows of a block, more than twice `rounds`.
        width: Columns of a block.
        rounds: How often the largest and the smallest value are set aside, at least 1.
        like: A tensor with the dtype and device of the blocks.
    """

    def __init__(self, num_rows: int, width: int, rounds: int, like: Tensor) -> None:
        self.width = width
        self._matches: list[tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]] = []
        sides = like.new_empty(2, num_rows // 2, width)
        self._high, self._low = sides
        self._last = like.new_empty(num_rows % 2, width)
        rest = self._lay_out(self._high, self._low, self._last)
        self._finals = [sides[:, :3], self._last] if num_rows % 2 else [sides[:, :3]]  # winners never leave the top 3
        for _ in range(1, rounds):
            before, half = rest, len(rest) // 2
            high, low = (like.new_empty(half, width) for _ in range(2))
            self._matches.append((torch.maximum, before[:half], before[half : 2 * half], high))
            self._matches.append((torch.minimum, before[:half], before[half : 2 * half], low))
            rest = self._lay_out(high, low, before[2 * half :])
        self.rest = rest.T
        """After `play`: in every column the values not set aside, in some order. `[width, rows - 2 * rounds]`"""

    def play(
        self,
        one: Tensor,  # [rows // 2, width]
        other: Tensor,  # [rows // 2, width]
        last: Tensor,  # [rows % 2, width]
    ) -> None:
        """Run all comparisons on the rows of a block, which stay as they are, and fill `rest`."""
        torch.maximum(one, other, out=self._high)
        torch.minimum(one, other, out=self._low)
        if len(self._last):
            self._last.copy_(last)
        for compare, one, other, out in self._matches:
            compare(one, other, out=out)

    def extremes(self) -> Tensor:  # []
        """Sum rows that hold the largest and the smallest value of every column of the last `play`."""
        first, *others = (rows.sum() for rows in self._finals)
        return first + others[0] if others else first

    def _lay_out(self, high: Tensor, low: Tensor, last: Tensor) -> Tensor:
        """Plan the rest of a round after its first matches; `last` is the row, if any, that met nobody."""
        rest = high.new_empty(2 * len(high) + len(last) - 2, self.width)
        filled = self._knock_out(high, torch.maximum, torch.minimum, rest, bool(len(last)))
        filled += self._knock_out(low, torch.minimum, torch.maximum, rest[filled:], bool(len(last)))
        if len(last):  # it meets the largest; who loses meets the smallest, and who wins that one stays
            self._matches.append((torch.minimum, high[0], last[0], rest[filled]))
            self._matches.append((torch.maximum, low[0], rest[filled], rest[filled]))
        return rest

    def _knock_out(
        self, field: Tensor, wins: Callable[..., Tensor], loses: Callable[..., Tensor], rest: Tensor, final: bool
    ) -> int:
        """Plan matches until one of `field` is left; losers, whose number is returned, go to `rest`."""
        filled, planned = 0, len(self._matches)
        while len(field) > 1:
            half = len(field) // 2
            self._matches.append((loses, field[:half], field[half : 2 * half], rest[filled : filled + half]))
            self._matches.append((wins, field[:half], field[half : 2 * half], field[:half]))
            filled += half
            if len(field) % 2:
                self._matches.append((loses, field[0], field[-1], rest[filled]))
                self._matches.append((wins, field[0], field[-1], field[0]))
                filled += 1
            field = field[:half]
        if not final and len(self._matches) > planned:
            self._matches.pop()  # nobody meets the winner again: who of the last two it is need not be worked out
        return filled
