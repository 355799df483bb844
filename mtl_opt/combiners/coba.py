"""Task weights from the slopes of the validation losses: even convergence, and less for tasks that diverge."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import at_least, named, positive
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.losses import non_negative_losses, softmax

FORMS = ("paper", "code")

SMALLEST_WEIGHT = 1e-30
"""So that a task can come back, and can be alone in a step."""


class CoBa(Combiner):
    r"""Raise the weight of tasks whose validation loss falls slowly, and lower it where the loss starts to rise.

    `observe` takes the validation losses. With $\alpha_i$ the least-squares slope of the last $N$ values of
    $L_i^{val} / L_i^{val}(0)$, $K$ observed tasks, and the $t$-th slope since the warm-up:

    $$ RCS_i = \operatorname{softmax}_i \frac{K \alpha_i(t)}{\sum_j |\alpha_j(t)|}, \qquad
       ACS_i = \operatorname{softmax}_i \frac{-N \alpha_i(t)}{\sum_{s=t-N+1}^{t} |\alpha_i(s)|}, \qquad
       DF = t\, \operatorname{softmax}_s \Bigl(\frac{-\tau\, t\, \alpha_{max}(s)}
            {\sum_{u \le t} |\alpha_{max}(u)|}\Bigr)_{s=t} $$

    $$ \text{paper: } w = DF' \cdot RCS + (1 - DF')\, ACS, \quad DF' = \min(DF, 1), \quad
       \alpha_{max} = \max_i \alpha_i $$

    $$ \text{code: } w = \operatorname{softmax}\bigl(K\,(DF \cdot RCS + (1 - DF)\, ACS)\bigr), \quad
       \text{weights below } \tfrac{1}{10K} \text{ lifted to it}, \quad
       \alpha_{max} \text{ the slope of } \max_i L_i^{val} / L_i^{val}(0) $$

    Scale: simplex (the weights of the present tasks add up to 1). They are equal until a task was observed `warmup`
    times, and stay as they are between observations. An observation of some tasks redistributes the weight these have
    among themselves.

    Undefined: slopes of 0 throughout give equal scores.

    Cost: one validation batch per task and observation; $O(\text{tasks} \times \text{window})$ of arithmetic, and one
    number kept per observation.

    Departures: that $DF$ is capped at 1 in the paper was not verified; the denominator of $DF$ takes absolute values,
    as the code does (with signed slopes a diverging task would raise $DF$). Windows and warm-up count observations.
    From the code: the history holds the last $N$ slopes from the first one on (there the first `warmup` are cut off
    again, and a long warm-up leaves none); every validation loss keeps its own time, so that a missed one does not
    compress the axis; a loss of 0 counts; the state is saved. Where tasks are missing, $\alpha_{max}$ takes the last
    known value of each.

    Args:
        form: "paper" or "code", the two variants above.
        window: Number of validation losses in a slope, and of slopes in the absolute score, $N$; at least 2. The
            authors advise two to five times the number of validation batches.
        warmup: Number of observations before the weights of a task leave their start; at least 2. The authors advise
            the number of validation batches.
        tau: Sharpness of the divergence factor.

    Raises:
        ValueError: If an argument is out of range, or a validation loss is negative.

    References:
        Gong, Yu, Liao, Liu, Chen, Li, `CoBa: Convergence Balancer for Multitask Finetuning of Large Language Models
        <https://arxiv.org/abs/2410.06741>`_, EMNLP 2024, Algorithm 1; code: MFTCoder, `loss_utils.py`.

    Examples:
        >>> combiner = CoBa(warmup=2)
        >>> for losses in ([1.0, 1.0], [0.5, 0.9]):
        ...     combiner.observe(torch.tensor(losses))
        >>> combiner.weights(None, torch.tensor([1.0, 1.0]))
        tensor([0.2086, 0.7914])
    """

    requires = "losses"
    observes = "validation"
    scale: ClassVar[str] = "simplex"
    paper = "Gong et al., CoBa: Convergence Balancer, EMNLP 2024, https://arxiv.org/abs/2410.06741"

    learnt: Tensor  # [tasks]
    first: Tensor  # [tasks]: what validation losses are divided by
    values: Tensor  # [tasks, window]: the last normalised validation losses, each written over the oldest
    times: Tensor  # [tasks, window]: when they were observed
    num_values: Tensor  # [tasks]
    slopes: Tensor  # [tasks, window]
    num_slopes: Tensor  # [tasks]
    peaks: Tensor  # [window]: the largest normalised validation loss of all tasks
    clock: Tensor  # []: number of observations

    def __init__(
        self, form: Literal["paper", "code"] = "paper", window: int = 200, warmup: int = 100, tau: float = 5.0
    ) -> None:
        super().__init__()
        self.form = named("form", form, FORMS)
        self.window = at_least("window", window, 2)
        self.warmup = at_least("warmup", warmup, 2)
        self.tau = positive("tau", tau)
        self.worst_slopes: list[float] = []

    def allocate(self, num_tasks: int) -> None:
        """Start with equal weights and nothing observed."""
        self.worst_slopes = []
        self.register_buffer("learnt", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))
        for name in ("first", "num_values", "num_slopes"):
            self.register_buffer(name, torch.zeros(num_tasks, dtype=torch.float64))
        for name in ("values", "times", "slopes"):
            self.register_buffer(name, torch.zeros(num_tasks, self.window, dtype=torch.float64))
        self.register_buffer("peaks", torch.zeros(self.window, dtype=torch.float64))
        self.register_buffer("clock", torch.zeros((), dtype=torch.float64))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        weights = self.learnt[step.tasks]
        return step.leave(weights / weights.sum())

    @override
    def observe(self, losses: Tensor, *, tasks: Sequence[int] | None = None) -> None:
        """Learn from validation losses; one that is not finite or negative is refused.

        Args:
            losses: Validation losses of the observed tasks. `[tasks]`
            tasks: Their indices among the bound names; None: all of them, in order.
        """
        step = self.enter(None, losses, tasks)
        present = np.asarray(step.tasks)
        self._record(non_negative_losses(self, step), present)
        ready = present[self.num_values.numpy()[present] >= self.warmup]
        if ready.size:
            self._reweight(ready)

    def _record(self, losses: np.ndarray, tasks: np.ndarray) -> None:  # [present], [present]
        """Normalise the losses and write them, with their time, over the oldest ones."""
        first, count = self.first.numpy(), self.num_values.numpy()
        first[tasks] = np.where(first[tasks] > 0, first[tasks], losses)
        place = tasks, count[tasks].astype(int) % self.window
        self.values.numpy()[place] = losses / np.where(first[tasks] > 0, first[tasks], 1.0)
        self.times.numpy()[place] = float(self.clock)
        count[tasks] += 1
        known = np.flatnonzero(count)
        latest = self.values.numpy()[known, (count[known].astype(int) - 1) % self.window]
        self.peaks[int(self.clock) % self.window] = float(latest.max())
        self.clock += 1

    def _reweight(self, tasks: np.ndarray) -> None:  # [ready]
        """Fit the slopes and redistribute the weight of the tasks among them."""
        slopes, count = self.slopes.numpy(), self.num_slopes.numpy()
        now = _fit(self.times.numpy()[tasks], self.values.numpy()[tasks], self.num_values.numpy()[tasks])
        slopes[tasks, count[tasks].astype(int) % self.window] = now
        count[tasks] += 1
        self.worst_slopes.append(self._worst_slope())
        # RCS compares the slopes of the tasks with each other, ACS each slope with the task's own last N ones.
        kept = np.minimum(count[tasks], self.window)
        relative = softmax(_over(len(tasks) * now, np.abs(now).sum()))
        absolute = softmax(_over(-kept * now, np.abs(slopes[tasks]).sum(1)))
        mixed = self._mix(relative, absolute, divergence_factor(np.array(self.worst_slopes), self.tau))
        learnt = self.learnt.numpy()
        learnt[tasks] = np.maximum(mixed * learnt[tasks].sum(), SMALLEST_WEIGHT)

    def _worst_slope(self) -> float:
        """Compute the slope of the task that converges worst."""
        if self.form == "code":
            last = int(self.clock) - 1
            times = last - (last - np.arange(self.window)) % self.window  # of each place in `peaks`
            return float(_fit(times[None], self.peaks.numpy()[None], np.array([last + 1]))[0])
        count = self.num_slopes.numpy()
        known = np.flatnonzero(count)
        return float(self.slopes.numpy()[known, (count[known].astype(int) - 1) % self.window].max())

    def _mix(self, relative: np.ndarray, absolute: np.ndarray, factor: float) -> np.ndarray:  # [ready], [ready]
        """Mix both scores as the paper or as the authors' code does."""
        if self.form == "paper":
            factor = min(factor, 1.0)
            return factor * relative + (1 - factor) * absolute
        num_tasks = len(relative)
        least = 1 / (10 * num_tasks)
        weights = softmax(num_tasks * (factor * relative + (1 - factor) * absolute))
        return weights * (1 - least * num_tasks) + least if (weights < least).any() else weights

    @override
    def get_extra_state(self) -> dict[str, Any]:
        """Return the state that is no buffer: names, generator, and a history that grows.

        Returns:
            Plain values and one byte tensor.
        """
        return {**super().get_extra_state(), "worst_slopes": list(self.worst_slopes)}

    @override
    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `get_extra_state` returned."""
        super().set_extra_state(state)
        self.worst_slopes = list(state["worst_slopes"])


def divergence_factor(worst_slopes: np.ndarray, tau: float) -> float:  # [observations]
    """Compute DF: 1 where the worst task converges as fast as it used to, towards 0 where it diverges."""
    # DF = t · softmax_s(-τ t α_max(s) / Σ|α_max|) at s = t, the latest slope.
    num_slopes = len(worst_slopes)
    return num_slopes * float(softmax(_over(-tau * num_slopes * worst_slopes, np.abs(worst_slopes).sum()))[-1])


def _over(values: np.ndarray, total: np.ndarray | float) -> np.ndarray:  # [n]
    """Divide, 0 where the total is 0."""
    return np.divide(values, total, out=np.zeros_like(values), where=np.asarray(total) > 0)


def _fit(times: np.ndarray, values: np.ndarray, count: np.ndarray) -> np.ndarray:  # [n, window] x2, [n] -> [n]
    """Compute the least-squares slope of the first `count` entries of every row."""
    filled = np.arange(times.shape[1]) < count[:, None]
    seen = filled.sum(1, keepdims=True)
    from_mean = (times - (times * filled).sum(1, keepdims=True) / seen) * filled
    rise = (values - (values * filled).sum(1, keepdims=True) / seen) * filled
    return (from_mean * rise).sum(1) / (from_mean**2).sum(1)
