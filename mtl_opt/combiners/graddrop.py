"""Keep one sign per coordinate, drawn by how much of it there is."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NoReturn

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.arguments import keep_numbers
from mtl_opt.combiners.common.columns import Work, block_width, over_columns, refuse_non_finite_rows
from mtl_opt.combiners.common.row_memory import no_weights
from mtl_opt.combiners.inputs import detached_rows


class GradDrop(Combiner):
    r"""Draw for every coordinate a sign, by its share of the gradients there, and drop what has the other sign.

    With one uniform $U$ in [0, 1) per coordinate and the leak $\ell_i$ of task $i$:

    $$ P = \frac12 \Bigl(1 + \frac{\sum_i g_i}{\sum_i \lvert g_i \rvert}\Bigr), \qquad
       M_i = [P > U]\,[g_i > 0] + [P \le U]\,[g_i < 0], \qquad
       d = \sum_i \bigl(\ell_i + (1 - \ell_i) M_i\bigr)\, g_i $$

    Without leak $d$ is the sum of the positive or the sum of the negative entries, so that no mask is made.

    Scale: sum (where all signs agree it equals `Sum`, and so it is on average). It is no weighted sum of the rows:
    `weights` raises.

    Undefined: nowhere.

    Cost: about 7 reads of the Jacobian and one random number per parameter, in blocks of columns.

    Departures: the paper drops gradients at the activations of a layer, after multiplying them by the sign of the
    activation and adding up the batch; here it is the gradient of the shared parameters, as in most later code. Its
    monotone function $f$ of $P$ is the identity, the paper's default.

    Args:
        leak: Share of a task's gradient that is never dropped, in [0, 1]: one number, or one per task by name or in
            task order. 1 for all tasks gives `Sum`.
        seed: Seed of the private generator. On a GPU it seeds one there in every step.

    Raises:
        ValueError: If a leak is out of range, or (at `bind`) the leaks do not fit the tasks.

    References:
        Chen, Ngiam, Huang, Luong, Kretzschmar, Chai, Anguelov, `Just Pick a Sign: Optimizing Deep Multitask Models
        with Gradient Sign Dropout <https://arxiv.org/abs/2010.06808>`_, NeurIPS 2020, Algorithm 1, equation 1.

    Examples:
        >>> GradDrop(seed=1)(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([-4.,  2.,  2.])
    """

    requires = "jacobian"
    scale: ClassVar[str] = "sum"
    paper = "Chen et al., Just Pick a Sign, NeurIPS 2020, https://arxiv.org/abs/2010.06808"

    def __init__(self, leak: float | Mapping[str, float] | Sequence[float] = 0.0, seed: int = 0) -> None:
        super().__init__(seed)
        values = np.asarray(list(leak.values()) if isinstance(leak, Mapping) else leak, dtype=float)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"`leak` must be in [0, 1], got {leak}.")
        self.leak = leak

    @override
    def allocate(self, num_tasks: int) -> None:
        """Resolve the names to one leak per task."""
        keep_numbers(self, "leaks", "leak", self.leak, self.tasks)

    @override
    def forward(self, jacobian: Tensor, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None) -> Tensor:
        rows = detached_rows(jacobian)
        step = self.enter(torch.zeros(len(rows), len(rows)), losses, tasks)
        state = self.generator.get_state()
        leaks = self.get_buffer("leaks")[step.tasks]
        combined, size = pick_signs(rows, leaks.to(rows) if bool(leaks.any()) else None, self._drawing_for(rows))
        if not bool(torch.isfinite(size)):
            self.generator.set_state(state)  # a refused step draws nothing
            assert self.tasks is not None
            refuse_non_finite_rows(rows, [self.tasks[t] for t in step.tasks])
        return combined.to(jacobian.dtype)

    def _drawing_for(self, rows: Tensor) -> torch.Generator:
        """Return a generator on the device of the rows, so that random numbers are drawn where they are used."""
        if rows.device.type == "cpu":
            return self.generator
        seed = int(torch.randint(2**62, (1,), generator=self.generator))
        return torch.Generator(rows.device).manual_seed(seed)

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> NoReturn:
        raise no_weights("GradDrop", "it keeps other tasks in every coordinate")


def pick_signs(
    rows: Tensor,  # [tasks, params]
    leaks: Tensor | None,  # [tasks]
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # [params], []
    """Drop one sign in every coordinate; also return a number that is not finite where a row is not."""
    # One random number per column waits where the result will stand: it does not depend on blocks or threads.
    combined = rows.new_empty(rows.shape[1]).uniform_(generator=generator)

    width = block_width(rows)  # asked here: the threads below are told that each is alone

    def build() -> Work:
        buffer = rows.new_empty(len(rows) + 1, width)

        def work(at: slice) -> Tensor:
            block, columns = rows[:, at], at.stop - at.start
            part, chosen = torch.clamp(block, min=0, out=buffer[:-1, :columns]), buffer[-1, :columns]
            positive = part.sum(0)
            kept_positive = positive if leaks is None else (1 - leaks) @ part
            torch.sub(block, part, out=part)
            negative = part.sum(0)
            kept_negative = negative if leaks is None else (1 - leaks) @ part
            # P > U with P = positive / absolute, multiplied out: no coordinate divides by 0.
            absolute, drawn = positive - negative, combined[at]
            # A product with 0 or 1: several times faster than `torch.where` on the CPU.
            torch.lt(drawn.mul_(absolute), positive, out=chosen)
            torch.mul(kept_positive, chosen, out=drawn)
            drawn.addcmul_(kept_negative, chosen.neg_().add_(1))
            if leaks is not None:
                drawn += leaks @ block
            return absolute.sum()

        return work

    return combined, over_columns(rows, build)
