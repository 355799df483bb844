"""The base of all combiners: `[tasks, tasks]` Gramian and `[tasks]` losses in, `[tasks]` weights out."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self, override

from mtl_opt.combiners.inputs import checked_gramian, checked_losses, detached_halves, detached_rows
from mtl_opt.linalg import gramian as gramian_of


@dataclass(frozen=True)
class CheckedInput:
    """Keep the checked input of one call: float64 on the CPU, where `[tasks, tasks]` mathematics is cheapest.

    Attributes:
        gramian: Inner products of the gradients of the present tasks. `[tasks, tasks]`
        losses: Their losses, None where the caller gave none. `[tasks]`
        tasks: Indices of the present tasks among the bound names. `[tasks]`
        like: A tensor with the caller's dtype and device.
    """

    gramian: Tensor  # [tasks, tasks]
    losses: Tensor | None  # [tasks]
    tasks: list[int]
    like: Tensor

    def leave(self, weights: Tensor) -> Tensor:  # [tasks] -> [tasks]
        """Convert weights to the caller's dtype and device."""
        return weights.to(self.like)


class Combiner(nn.Module, ABC):
    """Merge the gradients of several tasks into one update: pass a Jacobian, or a Gramian to get weights.

    A combiner owns everything it learns as buffers; no autograd graph goes through it and nothing of it belongs in
    an optimizer. `weights` and `forward` both advance its state and its generator: call one of them once a step.

    A new method is one file: set `requires`, `scale` and `paper`, implement `weights` between `self.enter` and
    `step.leave`, allocate state per task in `allocate`, and enter the class in `COMBINERS`.

    Attributes:
        requires: The cheapest input that is enough.
        over: Layers whose Gramian is wanted: "all", "last", or a list of layer names.
        observes: Losses to measure again after the step and hand to `observe`.
        by: None for one Gramian; "layer" or "tensor" where `weights` takes and returns one entry per block.
        scale_invariant: Whether the direction of the update stays the same when rows are multiplied by constants, so
            that weights and ratios of tasks do not move it.
        window: Steps over which the Gramian is wanted where `requires` is "window"; 0 elsewhere.
        scale: What the weights add up to when no gradients conflict, in the paper's own scale.
        paper: Authors, title, venue, link.
    """

    requires: Literal["losses", "gramian", "halves", "window", "jacobian"] = "gramian"
    over: str | list[str] = "all"
    observes: Literal["nothing", "batch", "validation"] = "nothing"
    by: Literal["layer", "tensor"] | None = None
    scale_invariant: bool = False
    window: int = 0
    scale: ClassVar[str] = "sum"
    paper: ClassVar[str] = ""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self.tasks: tuple[str, ...] | None = None
        self.notes: dict[str, None] = {}  # sentences, in the order they came up
        self.warned: set[str] = set()
        self.register_load_state_dict_pre_hook(_bind_to_checkpoint)

    @abstractmethod
    def weights(
        self,
        gramian: Tensor | None,  # [tasks, tasks]
        losses: Tensor | None = None,  # [tasks]
        *,
        tasks: Sequence[int] | None = None,
    ) -> Tensor:  # [tasks]
        """Compute the weight of every present task.

        Args:
            gramian: Inner products of the gradients of the present tasks; None is enough for a method that
                requires only losses; `J1 J2ᵀ` of the two halves for one that requires these. `[tasks, tasks]`
            losses: Their losses, for methods that use them. `[tasks]`
            tasks: Their indices among the bound names; None: all of them, in order.

        Returns:
            The weights, in dtype and on the device of the input. `[tasks]`
        """

    def forward(
        self,
        jacobian: Tensor,  # [tasks, params]
        losses: Tensor | None = None,  # [tasks]
        *,
        tasks: Sequence[int] | None = None,
    ) -> Tensor:  # [params]
        """Combine task gradients into one.

        Args:
            jacobian: One row per present task `[tasks, params]`; for a method that requires halves, two samples of
                them `[2, tasks, params]`, whose mean gets the weights.
            losses: Their losses, for methods that use them. `[tasks]`
            tasks: Their indices among the bound names; None: all of them, in order.

        Returns:
            The combined gradient. `[params]`

        Raises:
            ValueError: If the weights are wanted per block.
        """
        if self.by is not None:
            raise ValueError(
                f"`{type(self).__name__}` needs one Gramian per block: call `weights` with "
                "`TaskGradients.gramian(by=...)`."
            )
        if self.requires == "halves":
            first, second = detached_halves(jacobian)
            # d = ½ Σ_i w_i (g_{1,i} + g_{2,i}), as two products: the mean of the halves is never stored.
            half = self.weights(first @ second.T, losses, tasks=tasks).to(first.dtype) / 2
            return (half @ first + half @ second).to(jacobian.dtype)
        rows = detached_rows(jacobian)
        weights = self.weights(gramian_of(rows), losses, tasks=tasks)
        return (weights.to(rows.dtype) @ rows).to(jacobian.dtype)

    def bind(self, tasks: Sequence[str]) -> None:
        """Name the tasks, once, and allocate the state.

        Args:
            tasks: Names of all tasks, in the order of the rows.

        Raises:
            ValueError: If there is no task, a name occurs twice, or other tasks were bound before.
        """
        names = tuple(str(t) for t in tasks)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"`tasks` must be at least one name, each once, got {list(names)}.")
        if self.tasks == names:
            return
        if self.tasks is not None:
            raise ValueError(f"`{type(self).__name__}` is bound to tasks {list(self.tasks)}, got {list(names)}.")
        self.tasks = names
        try:
            self.allocate(len(names))
        except ValueError:  # such as weights that name other tasks: the next call must not find it bound
            self.tasks = None
            raise

    def allocate(self, num_tasks: int) -> None:
        """Create the state of `num_tasks` tasks as buffers; a method without state leaves this as it is."""

    def observe(self, losses: Tensor, *, tasks: Sequence[int] | None = None) -> None:  # [tasks]
        """Learn from the losses measured after the step; called only for methods whose `observes` asks for them."""

    def reset(self) -> None:
        """Forget everything learnt; the next call is a first call of the bound tasks."""
        self.generator.manual_seed(self.seed)
        for child in self.children():
            if isinstance(child, Combiner):  # what a wrapper wraps
                child.reset()
        if self.tasks is not None:
            self.allocate(len(self.tasks))

    def note(self, what: str, warn: bool = False) -> None:
        """Record that this step departed from the method; the event of the step carries the sentence.

        Args:
            what: What happened and what was done instead, without a name and without a full stop.
            warn: Whether it is a `RuntimeWarning` too, the first time.
        """
        sentence = f"`{type(self).__name__}`: {what}."
        self.notes[sentence] = None
        if warn and sentence not in self.warned:
            self.warned.add(sentence)
            warnings.warn(f"{sentence} This is said once.", RuntimeWarning, stacklevel=3)

    def take_notes(self) -> list[str]:
        """Return and clear the notes since the last call, those of wrapped combiners included.

        Returns:
            Sentences without repetition, in the order they came up.
        """
        parts = [part for part in self.modules() if isinstance(part, Combiner)]
        taken = list(dict.fromkeys(sentence for part in parts for sentence in part.notes))
        for part in parts:
            part.notes.clear()
        return taken

    def mean_instead(self, step: CheckedInput, why: str, warn: bool = False) -> Tensor:  # [tasks]
        """Return the weights of the mean in a step in which the method is undefined, and note why.

        Args:
            step: The checked input.
            why: The reason.
            warn: Whether it is a `RuntimeWarning` too, the first time.

        Returns:
            Equal weights that add up to 1, as `weights` returns them. `[tasks]`
        """
        self.note(f"{why}: the step takes the mean", warn)
        return step.leave(torch.full((len(step.tasks),), 1 / len(step.tasks), dtype=torch.float64))

    def enter(
        self,
        gramian: Tensor | None,  # [tasks, tasks]
        losses: Tensor | None,  # [tasks]
        tasks: Sequence[int] | None,
    ) -> CheckedInput:
        """Check the input of `weights`; every method calls this first.

        Args:
            gramian: As given to `weights`. `[tasks, tasks]`
            losses: As given to `weights`. `[tasks]`
            tasks: As given to `weights`.

        Returns:
            The checked input in float64 on the CPU.

        Raises:
            ValueError: If a shape, a task index or a value is not allowed.
        """
        if isinstance(gramian, Mapping):
            raise ValueError(f"`{type(self).__name__}` takes one `gramian`, got one per block: wrap it in `Scoped`.")
        like = gramian if gramian is not None else losses
        if like is None or (gramian is None and self.requires != "losses"):
            raise ValueError(f"`{type(self).__name__}` needs a `gramian` [tasks, tasks], got None.")
        if gramian is not None and (gramian.dim() != 2 or gramian.shape[0] != gramian.shape[1]):
            raise ValueError(f"`gramian` must be square [tasks, tasks], got shape {tuple(gramian.shape)}.")
        present = self._present(like.shape[0] if like.dim() else 0, tasks)
        names = [self.tasks[t] for t in present] if self.tasks else []
        matrix = torch.zeros(len(present), len(present), dtype=torch.float64)
        if gramian is not None:
            matrix = checked_gramian(gramian, names, two_samples=self.requires == "halves")
        vector = None if losses is None else checked_losses(losses, names)
        return CheckedInput(matrix, vector, present, like)

    def _present(self, num_rows: int, tasks: Sequence[int] | None) -> list[int]:
        """Return the index of the bound task of each row; an unbound combiner binds itself to 0…m−1."""
        if num_rows == 0:
            raise ValueError("There is no row to combine: at least one row is needed.")
        if self.tasks is None and tasks is None:
            self.bind([str(t) for t in range(num_rows)])
        if self.tasks is None:
            raise ValueError("`tasks` can be given only after `bind(names)`.")
        present = list(range(len(self.tasks))) if tasks is None else [int(t) for t in tasks]
        if len(set(present)) != len(present) or not all(0 <= t < len(self.tasks) for t in present):
            raise ValueError(f"`tasks` must be different indices below {len(self.tasks)}, got {present}.")
        if len(present) != num_rows:
            raise ValueError(f"{num_rows} rows were given for {len(present)} tasks ({', '.join(self.tasks)}).")
        return present

    @override
    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Keep the state in float64 on the CPU, whatever a module around it is moved or cast to."""
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state that is no buffer: the names of the tasks and the generator.

        Returns:
            Plain values and one byte tensor.
        """
        return {"tasks": list(self.tasks) if self.tasks else None, "generator": self.generator.get_state()}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `get_extra_state` returned; names were restored when the buffers were allocated.

        Args:
            state: The extra state of a checkpoint.
        """
        self.generator.set_state(state["generator"].cpu())


def _bind_to_checkpoint(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Allocate the state a checkpoint holds before it is copied, so that a fresh combiner loads any checkpoint."""
    assert isinstance(module, Combiner)
    extra = state.get(f"{prefix}_extra_state")
    if extra is not None and extra["tasks"] is not None:
        module.bind(extra["tasks"])
