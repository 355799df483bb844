"""The losses of a step as a caller gives them, and where the backward of each one begins."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

Losses: TypeAlias = Tensor | Sequence[Tensor | None] | Mapping[str, Tensor | None]
"""One loss per task `[tasks]`, or one by one, in task order or by name; None or a missing name: the task is absent."""


class LossRoots:
    """Keep the values of the losses, and what to differentiate for each.

    Losses that come one by one or stacked are differentiated themselves: through a `torch.stack` each of T backwards
    would run the graphs of all T losses.

    Args:
        values: Values of the losses, NaN for an absent one. `[rows]`
        outputs: What to differentiate, None for an absent loss. `[rows]`
        apart: Whether each loss has a graph of its own, so that one that is absent cannot reach the others.
    """

    def __init__(self, values: Tensor, outputs: Sequence[Tensor | GradientEdge | None], apart: bool) -> None:
        self.values = values
        self.outputs = outputs
        self.apart = apart

    @property
    def given(self) -> list[bool]:
        """Whether each loss is there."""
        return [output is not None for output in self.outputs]

    def scaled(self, factors: Tensor) -> "ScaledLosses":  # [rows]
        """Multiply each loss by a factor when it is differentiated."""
        return ScaledLosses(self.outputs, factors.detach().to(torch.promote_types(self.values.dtype, torch.float32)))


class ScaledLosses:
    """Losses times factors, to be differentiated one by one or together.

    Args:
        outputs: What to differentiate, None for an absent loss. `[rows]`
        factors: What the gradient of each loss is multiplied by. `[rows]`
    """

    def __init__(self, outputs: Sequence[Tensor | GradientEdge | None], factors: Tensor) -> None:
        self.outputs = outputs
        self.factors = factors

    def start(self, rows: Sequence[int]) -> tuple[list[Any], list[Tensor]]:
        """Return where the backward of some losses starts, and with which gradients."""
        outputs = [self.outputs[row] for row in rows]
        begins = []
        for row, output in zip(rows, outputs, strict=True):
            factor = self.factors[row]
            begins.append(factor.to(output).expand_as(output) if isinstance(output, Tensor) else factor)
        return outputs, begins

    def backward(self, rows: Sequence[int], retain_graph: bool) -> None:
        """Run one backward for some losses together."""
        outputs, begins = self.start(rows)
        torch.autograd.backward(outputs, begins, retain_graph=retain_graph)

    def grad(self, row: int, wanted: Sequence[Tensor], retain_graph: bool) -> Sequence[Tensor | None]:
        """Differentiate one loss without touching any `.grad`."""
        outputs, begins = self.start([row])
        return torch.autograd.grad(outputs, wanted, begins, retain_graph=retain_graph, allow_unused=True)


def read_losses(losses: Losses, tasks: Sequence[str], halves: bool = False) -> LossRoots:
    """Read the losses of a step, or raise for what is not one per task."""
    if isinstance(losses, Mapping):
        unknown = [name for name in losses if name not in tasks]
        if unknown:
            raise ValueError(f"`losses` names unknown tasks {unknown}; tasks are {list(tasks)}.")
        losses = [losses.get(task) for task in tasks]
    if not isinstance(losses, Tensor):
        return _one_by_one(list(losses), tasks, halves)
    allowed = [(2, len(tasks)), (2 * len(tasks),)] if halves else [(len(tasks),)]
    if losses.shape not in allowed:
        raise _wrong_shape(f"{list(allowed[0])}", f"shape {tuple(losses.shape)}", tasks, halves)
    if not losses.requires_grad:
        raise ValueError("`losses` depend on no trainable parameter.")
    edges = _stacked(losses)
    pairs = zip(edges or [None] * losses.numel(), losses.flatten().unbind(), strict=True)
    outputs = [loss if edge is None else edge for edge, loss in pairs]  # a constant in a stack has no edge
    return LossRoots(losses.detach().flatten(), outputs, apart=bool(edges))


def _one_by_one(losses: list[Tensor | None], tasks: Sequence[str], halves: bool) -> LossRoots:
    """Read losses that are tensors of one number each."""
    size = len(tasks) * (2 if halves else 1)
    if len(losses) != size:
        raise _wrong_shape(str(size), f"{len(losses)} of them", tasks, halves)
    for row, loss in enumerate(losses):
        if loss is None:
            continue
        name = tasks[row % len(tasks)]
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"The loss of task `{name}` must be a tensor of one number, got {what}.")
        if not loss.requires_grad:
            raise ValueError(
                f"`losses[{row}]` (task `{name}`) depends on no trainable parameter; give None where a task is absent."
            )
    known = next((loss for loss in losses if loss is not None), None)
    if known is None:
        raise ValueError("`losses` are all None: at least one task must be present.")
    nothing = torch.full((), torch.nan, dtype=known.dtype, device=known.device)
    return LossRoots(
        torch.stack([nothing if loss is None else loss.detach().reshape(()).to(nothing) for loss in losses]),
        losses,
        apart=True,
    )


def _stacked(losses: Tensor) -> list[GradientEdge | None]:
    """Return where each of the losses begins that a `torch.stack` has put together; empty where they come otherwise."""
    node = losses.grad_fn
    if losses.dim() != 1 or node is None or node.name() != "StackBackward0":
        return []
    return [None if edge is None else GradientEdge(edge, number) for edge, number in node.next_functions]


def _wrong_shape(wanted: str, got: str, tasks: Sequence[str], halves: bool) -> ValueError:
    """Build the error for losses that are not one per task."""
    return ValueError(
        f"`losses` must be {wanted}, one per task ({', '.join(tasks)}){' and half' if halves else ''}, got {got}: a "
        "loss already summed over tasks cannot be taken apart."
    )
