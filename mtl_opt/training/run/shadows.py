"""Shadow combiners: what other methods would have done with the steps of a run that one of them leads."""

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
"""Steps that may wait, so that rare log lines do not fill the memory."""


@dataclass(frozen=True)
class SeenStep:
    """What a combiner is given in one step, on the CPU.

    Attributes:
        present: Tasks that are present.
        losses: Their losses. `[present]`
        gramians: Gramians of the present tasks by what asks for them: "gramian", "window", "halves", or the layers of
            a combiner's `over`. `{name: [present, present]}`
    """

    present: list[int]
    losses: Tensor  # [present]
    gramians: dict[str, Tensor]


@dataclass(frozen=True)
class ObservedLosses:
    """Losses measured again after a step, for combiners that learn from them.

    Attributes:
        kind: Which losses: "batch" or "validation".
        losses: The losses. `[present]`
        tasks: Whose.
    """

    kind: str
    losses: Tensor  # [present]
    tasks: list[int]


@dataclass
class Shadow:
    """One combiner that is asked and not leading_combiner.

    Attributes:
        combiner: The combiner, bound to the tasks, with state and random numbers of its own.
        remembers: Whether earlier steps change what it answers.
        every_step: Whether it must see every step: it remembers, or draws numbers that must be those of the run's own.
        notes: What it did instead of its method since the last reading, or why it failed.
    """

    combiner: Combiner
    remembers: bool
    every_step: bool
    notes: dict[str, None] = field(default_factory=dict)

    def ask(self, seen: SeenStep) -> Tensor | None:  # -> [present]
        """Ask for the weights of a step; what it raises becomes a note."""
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
        """Hand over losses that were measured again; what it raises becomes a note."""
        try:
            self.combiner.observe(seen.losses, tasks=seen.tasks)
        except Exception as error:
            self.notes[f"{type(error).__name__}: {error}"] = None

    def take_note(self) -> str:
        """Hand over what was noted since the last call."""
        notes, self.notes = self.notes, {}
        return " ".join(notes)


class Shadows:
    """Ask combiners what they would have done, without touching the run: neither its update nor its random numbers.

    A step only puts what was seen into a queue. The queue is worked off when a log line is due (or a checkpoint): asked
    ten times in a row, a combiner costs a third of what it costs between two steps that have emptied the caches.

    Args:
        combiners: The combiners by name, bound to the tasks; they belong to this object.
        num_tasks: Number of tasks.
        used: Name of the run's own method, which is asked in every step so that it draws the run's own numbers.
    """

    def __init__(self, combiners: Mapping[str, Combiner], num_tasks: int, used: str | None = None) -> None:
        self.num_tasks = num_tasks
        self.shadows = {name: _shadow(combiner, num_tasks, name == used) for name, combiner in combiners.items()}
        self.queue: list[SeenStep | ObservedLosses] = []

    @property
    def inputs(self) -> dict[str, Combiner]:
        """One combiner for every different Gramian that is wanted in every step, by the name of that Gramian."""
        return {gramian_name(s.combiner): s.combiner for s in self.shadows.values() if s.every_step}

    @property
    def last_inputs(self) -> dict[str, Combiner]:
        """The same for a step that is read."""
        return {gramian_name(s.combiner): s.combiner for s in self.shadows.values()}

    def see(self, seen: SeenStep) -> None:
        """Remember a step."""
        if len(self.queue) >= LONGEST_QUEUE:
            self.catch_up()
        self.queue.append(seen)

    def observe(self, kind: str, losses: Tensor, tasks: Sequence[int]) -> None:  # [present]
        """Remember losses that were measured again after the step, where a combiner learns from them."""
        if any(shadow.combiner.observes == kind for shadow in self.shadows.values()):
            self.queue.append(ObservedLosses(kind, losses.cpu(), list(tasks)))

    def read(self) -> dict[str, ShadowReading]:
        """Ask all combiners about the step that was seen last, which nothing was observed after."""
        last = self.queue.pop()
        assert isinstance(last, SeenStep)
        self.catch_up()
        with _undisturbed():
            return {name: self._reading(shadow, last) for name, shadow in self.shadows.items()}

    def catch_up(self) -> None:
        """Show the combiners that must see every step the steps in the queue."""
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
        """Ask one combiner."""
        weights = shadow.ask(seen)
        filled = None
        if weights is not None:
            filled = torch.zeros(self.num_tasks, dtype=weights.dtype)
            filled[seen.present] = weights
        return ShadowReading(filled, shadow.remembers, shadow.take_note())

    def state_dict(self) -> dict[str, Any]:
        """Collect what must travel in a checkpoint."""
        self.catch_up()
        return {
            name: {"combiner": shadow.combiner.state_dict(), "notes": list(shadow.notes)}
            for name, shadow in self.shadows.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, shadow in self.shadows.items():
            shadow.combiner.load_state_dict(state[name]["combiner"])
            shadow.notes = dict.fromkeys(state[name]["notes"])


def gramian_name(combiner: Combiner) -> str:
    """Name the Gramian that a combiner wants."""
    if combiner.requires in {"window", "halves"}:
        return combiner.requires
    over = combiner.over
    return "gramian" if over == "all" or combiner.requires == "losses" else f"over {over}"


def _shadow(combiner: Combiner, num_tasks: int, used: bool) -> Shadow:
    """Find out what a combiner carries from step to step, by asking a copy of it twice."""
    probe = copy.deepcopy(combiner)
    before = _state_without_draws(probe)
    with _undisturbed():
        try:
            rows = torch.randn(num_tasks, num_tasks + 2, generator=torch.Generator().manual_seed(0))
            for _ in range(2):
                probe.weights(rows @ rows.T, torch.linspace(1, 2, num_tasks))
        except Exception:  # then it is taken for one that remembers, which costs time and nothing else
            return Shadow(combiner, remembers=True, every_step=True)
    remembers = combiner.observes != "nothing" or not _states_equal(before, _state_without_draws(probe))
    return Shadow(combiner, remembers, every_step=remembers or used)


def _state_without_draws(combiner: Combiner) -> dict[str, Any]:
    """Copy a combiner's state without its random numbers."""

    def stripped(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: stripped(entry) for key, entry in value.items() if key not in {"generator", "tasks"}}
        return value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)

    return stripped(combiner.state_dict())


def _states_equal(first: Any, second: Any) -> bool:
    """Compare two states."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_states_equal(first[key], second[key]) for key in first)
    return bool(first == second)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep what a shadow warns of from the user: its notes say it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
