"""The scalars of one step (losses, norms, cosines, weights), and their average between two log lines."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from math import isnan, nan

import torch
from torch import Tensor

from mtl_opt.linalg import conflict_rate, cosines, norms
from mtl_opt.monitor.events import StepEvent


def distinct(names: Iterable[str]) -> list[str]:
    """Number equal names, so that no value overwrites another.

    Examples:
        >>> distinct(["a", "b", "a"])
        ['a', 'b', 'a_2']
    """
    taken: dict[str, None] = {}
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken[candidate] = None
    return list(taken)


def scalar_keys(tasks: Sequence[str]) -> list[str]:
    """List every key that `scalars` can give, in its order.

    Examples:
        >>> scalar_keys(["qa", "sum"])[2:7]
        ['loss_sum', 'grad_norm', 'grad_norm_qa', 'grad_norm_sum', 'grad_cos_qa_sum']
    """
    keys = ["loss", *(f"loss_{task}" for task in tasks), "grad_norm", *(f"grad_norm_{task}" for task in tasks)]
    if len(tasks) > 1:
        keys += [*distinct(f"grad_cos_{a}_{b}" for a, b in combinations(tasks, 2)), "conflict_rate"]
    return [*keys, *(f"weight_{task}" for task in tasks), *(f"pull_{task}" for task in tasks), "learning_rate"]


def scalars(event: StepEvent, tasks: Sequence[str]) -> dict[str, float]:
    """Read every monitored number off one step.

    Args:
        event: What happened in the step.
        tasks: Names of the tasks, in the order of the event's tensors.

    Returns:
        `loss` (mean over the present tasks, nats) and `loss_{task}`, `grad_norm` (combined) and `grad_norm_{task}`,
        `grad_cos_{a}_{b}` for every pair and their `conflict_rate` (with two tasks or more), `weight_{task}` where the
        step has weights, `pull_{task}` (share of the summed scales) where it has scales, `learning_rate`. NaN where a
        value is undefined: an absent task, a zero gradient.
    """
    named = dict(zip(scalar_keys(tasks), measured(event), strict=True))
    for key, found in (("weight", event.weights), ("pull", event.scales)):
        if found is None:
            for task in tasks:
                del named[f"{key}_{task}"]
    return named


def measured(event: StepEvent) -> list[float]:
    """Read the numbers of one step without their names."""
    present, num_tasks = event.counts > 0, len(event.counts)
    numbers = [event.losses[present].mean().item(), *mask_absent(present, event.losses)]
    numbers += [event.grad_norm, *mask_absent(present, norms(event.gramian))]
    if num_tasks > 1:
        first, second = torch.triu_indices(num_tasks, num_tasks, offset=1)
        numbers += [*cosines(event.gramian)[first, second].tolist(), conflict_rate(event.gramian).item()]
    numbers += [nan] * num_tasks if event.weights is None else mask_absent(present, event.weights)
    numbers += [nan] * num_tasks if event.scales is None else (event.scales / event.scales.sum()).tolist()
    return [*numbers, event.learning_rate]


def mask_absent(
    present: Tensor,  # [tasks]
    values: Tensor,  # [tasks]
) -> list[float]:  # [tasks], [tasks]
    """Replace the values of absent tasks by NaN."""
    return torch.where(present, values, nan).tolist()


class EventWindow:
    """Collect the events between two log lines and average them.

    A step only appends to a list; everything is computed when the window is read.

    Args:
        tasks: Names of the tasks, in the order of the events' tensors.

    Examples:
        >>> window = EventWindow(["qa", "sum"])
        >>> gramian = torch.tensor([[4.0, -1.0], [-1.0, 1.0]])
        >>> window.add(StepEvent(1, torch.tensor([2.0, 4.0]), torch.ones(2), gramian, None, 1e-3, 1.5))
        >>> averages, matrix = window.read_and_clear()
        >>> averages["loss"], averages["grad_cos_qa_sum"], averages["conflict_rate"]
        (3.0, -0.5, 1.0)
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)
        self.events: list[StepEvent] = []
        self.notes: Counter[str] = Counter()

    def add(self, event: StepEvent) -> None:
        """Keep one event until the next reading.

        Args:
            event: What happened in the step.
        """
        self.events.append(event)
        self.notes.update(event.notes)

    def read_and_clear(self) -> tuple[dict[str, float], Tensor]:
        """Average the window and start a new one.

        Returns:
            The mean of every scalar over the steps in which it was defined, without those that never were (of
            `learning_rate` the last value); and the mean cosines `[tasks, tasks]`, NaN where never defined.
        """
        events, self.events = self.events, []
        if not events:
            return {}, torch.full((len(self.tasks), len(self.tasks)), nan)
        means = torch.tensor([measured(event) for event in events], dtype=torch.float64).nanmean(dim=0).tolist()
        averages = {key: mean for key, mean in zip(scalar_keys(self.tasks), means, strict=True) if not isnan(mean)}
        averages["learning_rate"] = events[-1].learning_rate
        return averages, torch.stack([cosines(event.gramian) for event in events]).nanmean(dim=0)

    def take_notes(self) -> dict[str, int]:
        """Count in how many steps each note was made since the last call.

        Returns:
            Steps by sentence, in the order in which they came up.
        """
        notes, self.notes = self.notes, Counter()
        return dict(notes)
