"""Shadow combiners: what other methods would have done with the steps of a run."""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mtl_opt.combiners import Combiner
from mtl_opt.monitor import ShadowReading

LONGEST_QUEUE = 100
"""Most steps in the queue, so that rare log lines do not fill the memory."""


@dataclass(frozen=True)
class SeenStep:
    """The input of the combiners in one step, on the CPU.

    Attributes:
        present: Tasks that are present.
        losses: Their losses. `[present]`
        gramians: Gramians of the present tasks by `gramian_name`: "gramian", "window", "halves", or the layers of a
            combiner's `over`. `{name: [present, present]}`
    """

    present: list[int]
    losses: Tensor  # [present]
    gramians: dict[str, Tensor]


@dataclass(frozen=True)
class ObservedLosses:
    """Losses measured again after a step, from which some combiners learn.

    Attributes:
        kind: Which losses: "batch" or "validation".
        losses: The losses. `[present]`
        tasks: The tasks they belong to, in the same order.
    """

    kind: str
    losses: Tensor  # [present]
    tasks: list[int]


@dataclass
class Shadow:
    """A combiner whose weights are computed and not applied.

    Attributes:
        combiner: The combiner, bound to the tasks, with state and random numbers of its own.
        remembers: Whether its weights depend on earlier steps.
        every_step: Whether it must see every step: it remembers, or its random numbers must be those of the run.
        notes: Where it departed from its method since the last reading, or why it failed.
    """

    combiner: Combiner
    remembers: bool
    every_step: bool
    notes: dict[str, None] = field(default_factory=dict)

    def ask(self, seen: SeenStep) -> Tensor | None:  # -> [present]
        """Compute the weights of a step; errors become notes."""
        weights = None
        try:
            found = self.combiner.weights(seen.gramians[gramian_name(self.combiner)], seen.losses, tasks=seen.present)
            if bool(found.isfinite().all()):
                weights = found
            else:
                self.notes["The weights are not finite."] = None
        except Exception as error:  # a shadow never stops a run, whatever it raises
            self.notes[f"{type(error).__name__}: {error}"] = None
        self.notes |= dict.fromkeys(self.combiner.take_notes())
        return weights

    def observe(self, seen: ObservedLosses) -> None:
        """Pass on losses measured again; errors become notes."""
        try:
            self.combiner.observe(seen.losses, tasks=seen.tasks)
        except Exception as error:
            self.notes[f"{type(error).__name__}: {error}"] = None

    def take_note(self) -> str:
        """Return the notes since the last call, and clear them."""
        notes, self.notes = self.notes, {}
        return " ".join(notes)


class Shadows:
    """Compute what other combiners would have done, without touching the update or the random numbers of the run.

    A step is only queued. The queue is replayed when a log line or a checkpoint is due: ten calls in a row cost a third
    of ten calls between steps that have emptied the caches.

    Args:
        combiners: The combiners by name, bound to the tasks; they belong to this object.
        num_tasks: Number of tasks.
        used: Name of the run's own method, which sees every step so that it draws the same random numbers.
    """

    def __init__(self, combiners: Mapping[str, Combiner], num_tasks: int, used: str | None = None) -> None:
        self.num_tasks = num_tasks
        self.shadows = {name: _shadow(combiner, num_tasks, name == used) for name, combiner in combiners.items()}
        self.queue: list[SeenStep | ObservedLosses] = []

    @property
    def inputs(self) -> dict[str, Combiner]:
        """One combiner for every Gramian that is wanted in every step, by the name of that Gramian."""
        return {gramian_name(s.combiner): s.combiner for s in self.shadows.values() if s.every_step}

    @property
    def last_inputs(self) -> dict[str, Combiner]:
        """One combiner for every Gramian that is wanted at a log line, by the name of that Gramian."""
        return {gramian_name(s.combiner): s.combiner for s in self.shadows.values()}

    def see(self, seen: SeenStep) -> None:
        """Queue a step."""
        if len(self.queue) >= LONGEST_QUEUE:
            self.catch_up()
        self.queue.append(seen)

    def observe(self, kind: str, losses: Tensor, tasks: Sequence[int]) -> None:  # [present]
        """Queue losses measured again after the step, if a combiner learns from them."""
        if any(shadow.combiner.observes == kind for shadow in self.shadows.values()):
            self.queue.append(ObservedLosses(kind, losses.cpu(), list(tasks)))

    def read(self) -> dict[str, ShadowReading]:
        """Compute the weights of all combiners for the last step queued, after which nothing was observed."""
        last = self.queue.pop()
        assert isinstance(last, SeenStep)
        self.catch_up()
        with _undisturbed():
            return {name: self._reading(shadow, last) for name, shadow in self.shadows.items()}

    def catch_up(self) -> None:
        """Replay the queue to the combiners that must see every step."""
        queue, self.queue = self.queue, []
        with _undisturbed():
            for shadow in self.shadows.values():
                for seen in queue:
                    if isinstance(seen, ObservedLosses):
                        if shadow.combiner.observes == seen.kind:
                            shadow.observe(seen)
                    elif shadow.every_step:
                        shadow.ask(seen)

    def _reading(self, shadow: Shadow, seen: SeenStep) -> ShadowReading:
        """Compute the weights of one combiner, with zeros for absent tasks."""
        weights = shadow.ask(seen)
        filled = None
        if weights is not None:
            filled = torch.zeros(self.num_tasks, dtype=weights.dtype)
            filled[seen.present] = weights
        return ShadowReading(filled, shadow.remembers, shadow.take_note())

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        self.catch_up()
        return {
            name: {"combiner": shadow.combiner.state_dict(), "notes": list(shadow.notes)}
            for name, shadow in self.shadows.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        for name, shadow in self.shadows.items():
            shadow.combiner.load_state_dict(state[name]["combiner"])
            shadow.notes = dict.fromkeys(state[name]["notes"])


def gramian_name(combiner: Combiner) -> str:
    """Name the Gramian a combiner takes."""
    if combiner.requires in {"window", "halves"}:
        return combiner.requires
    over = combiner.over
    return "gramian" if over == "all" or combiner.requires == "losses" else f"over {over}"


def _shadow(combiner: Combiner, num_tasks: int, used: bool) -> Shadow:
    """Determine whether a combiner keeps state between steps, by running a copy of it twice."""
    probe = copy.deepcopy(combiner)
    before = _state_without_draws(probe)
    with _undisturbed():
        try:
            rows = torch.randn(num_tasks, num_tasks + 2, generator=torch.Generator().manual_seed(0))
            for _ in range(2):
                probe.weights(rows @ rows.T, torch.linspace(1, 2, num_tasks))
        except Exception:  # assumed to remember, which costs nothing but time
            return Shadow(combiner, remembers=True, every_step=True)
    remembers = combiner.observes != "nothing" or not _states_equal(before, _state_without_draws(probe))
    return Shadow(combiner, remembers, every_step=remembers or used)


def _state_without_draws(combiner: Combiner) -> dict[str, Any]:
    """Copy a combiner's state without its random generators."""

    def stripped(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: stripped(entry) for key, entry in value.items() if key not in {"generator", "tasks"}}
        return value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)

    return stripped(combiner.state_dict())


def _states_equal(first: Any, second: Any) -> bool:
    """Compare two states, NaN equal to NaN."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_states_equal(first[key], second[key]) for key in first)
    return bool(first == second)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Suppress warnings of shadows: their notes tell what happened."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
