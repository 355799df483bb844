"""Soft sharing: an adapter per task, held together by a penalty on how far they are apart."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.checks import named, positive
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.parts.distances import factors, pull_together, trace_norm
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import PrivateLora

PENALTIES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor] | None] = {
    "l2": pull_together,
    "trace_norm": trace_norm,
    "none": None,
}
"""Distances by name."""

SCHEDULES = ("constant", "linear", "cosine")
"""How a strength goes from its first to its last value."""


class Soft(AdapterSharing):
    r"""One adapter per task; a penalty keeps the tasks' updates ΔW_t = B_t A_t near each other. Nothing is shared.

    Added to the objective, summed over all layers, with the strength λ_t of each task:

    * `penalty: l2`: `Σ_t λ_t / (T - 1) Σ_{j≠t} ½ ‖ΔW_t - ΔW_j‖²`;
    * `penalty: trace_norm`: the sum of the singular values of the matrix `[T, out · in]` whose rows are
      `λ_t vec(ΔW_t)`: tasks become combinations of few common updates;
    * `penalty: none`: T adapters that do not know of each other, trained in one run.

    No ΔW is ever formed: all of it is products of `rank · tasks` columns. Cost per step and layer: about
    `tasks² rank² (in + out)` operations, whatever the number of tokens.

    With no shared parameter there is nothing to combine, no Gramian and no cosine: each task takes its own gradient,
    and the penalty's on top. Each task is pulled by its own λ_t towards the others as they are (they are held fixed in
    its term); with equal λ_t the gradient is that of the symmetric penalty. A task without rows in a step stays where
    it is.

    Departures from the papers: the distance is between low-rank updates instead of whole weights, and between the
    products, not the factors, so that two adapters that do the same are at no distance.

    Args:
        penalty: "l2", "trace_norm" or "none".
        strength: λ of every task that `tasks.NAME.penalty` does not name.
        schedule: "constant", "linear" or "cosine": how the strength goes to `final_strength`.
        final_strength: Strength at the end of the run, with "linear" and "cosine".

    Raises:
        ValueError: If an argument is not allowed.

    References:
        Duong, Cohn, Bird, Cook, `Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a Neural Network
        Parser <https://aclanthology.org/P15-2139/>`_, ACL 2015 (L2); Yang and Hospedales, `Trace Norm Regularised Deep
        Multi-Task Learning <https://arxiv.org/abs/1606.04038>`_, ICLR 2017 workshop (trace norm, last-axis flattening).
    """

    summary: ClassVar[str] = "one adapter per task, a penalty on the distance between them; nothing is shared"
    paper = "Duong et al., Low Resource Dependency Parsing, ACL 2015, https://aclanthology.org/P15-2139/"
    penalises: ClassVar[bool] = True

    def __init__(
        self,
        penalty: str = "l2",
        strength: float = 0.01,
        schedule: str = "constant",
        final_strength: float | None = None,
    ) -> None:
        self.distance = PENALTIES[named("penalty", penalty, list(PENALTIES))]
        self.schedule = StrengthSchedule(schedule, strength, final_strength)
        self.adapters: list[PrivateLora] = []
        self.own: dict[int, float] = {}

    @override
    def apply(self, context: SharingContext) -> None:
        own = {task: positive("penalty", value, zero=True) for task, value in context.of_tasks("penalty").items()}
        if self.distance is None and own:
            raise ValueError(f"`penalty: none` has no strength, and `tasks.{next(iter(own))}.penalty` gives one.")
        self.own = {context.tasks.index(task): value for task, value in own.items()}
        super().apply(context)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        self.adapters.append(PrivateLora(layer, context.lora, context.tasks, context.of_tasks("dropout")))
        return self.adapters[-1]

    @override
    def penalty(self, step: int, total_steps: int) -> Tensor | None:
        tasks = range(len(self.adapters[0].tasks))
        usual, first = self.schedule.at(step, total_steps), self.schedule.first
        # A task's own strength follows the schedule in the same proportion.
        factor = usual / first if first else 1.0
        strengths = [self.own[t] * factor if t in self.own else usual for t in tasks]
        present = tasks if self.present is None else self.present
        pulled = [strength if t in present else 0.0 for t, strength in enumerate(strengths)]
        if self.distance is None or len(tasks) < 2 or not any(pulled):
            return None
        terms = [self._of_layer(adapter, strengths, pulled) for adapter in self.adapters]
        return sum(terms[1:], start=terms[0])

    def _of_layer(self, adapter: PrivateLora, strengths: list[float], pulled: list[float]) -> Tensor:
        """Compute the penalty of one layer; tasks that are not pulled are held fixed."""
        assert self.distance is not None
        pairs = [adapter.lora_of(task) for task in range(len(strengths))]
        held = [(a, b) if own else (a.detach(), b.detach()) for (a, b), own in zip(pairs, pulled, strict=True)]
        a, b = factors(held)
        return self.distance(a, b, torch.tensor(strengths, dtype=a.dtype, device=a.device))

    @override
    def report(self) -> dict[str, float]:
        pairs = [factors([adapter.lora_of(t) for t in range(len(adapter.tasks))]) for adapter in self.adapters]
        ones = [a.new_ones(len(a)) for a, _ in pairs]
        with torch.no_grad():
            far = sum(float(pull_together(a, b, one)) for (a, b), one in zip(pairs, ones, strict=True))
        return {"distance": far} if len(ones[0]) > 1 else {}


class StrengthSchedule:
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
