"""Routing of rows to the parameters of their task, and which tokens are padding."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_opt.batch import Segments, current_segments

Rows = slice | Tensor
"""Rows of one task in a flattened batch: a slice where they are contiguous, else their indices."""


class OtherRowsError(ValueError):
    """Raised when a module's input does not have the rows whose tasks are known."""


def rows_of_tasks(
    x: Tensor,  # [batch, ...] or [batch, seq, ...]
    num_tasks: int,
) -> Segments:
    """Find the rows of every task in an input, from the innermost open `task_rows` context."""
    segments = current_segments(num_tasks)
    if segments is None:
        raise ValueError("Which task owns each row is not known: run the model inside `with task_rows(ids):`.")
    if x.shape[: len(segments.shape)] != segments.shape:
        raise OtherRowsError(
            f"An input of shape {tuple(x.shape)} does not begin with the shape {tuple(segments.shape)} of the task ids "
            "that are open: open `task_rows` with the ids of these rows."
        )
    return segments


def by_task(
    x: Tensor,  # [*ids, ..., in]
    segments: Segments,
    apply: Callable[[int, Tensor], Tensor],
) -> Tensor:  # [*ids, ..., out]
    """Run every task's rows through a function of its own."""
    outputs = [apply(task, rows) for task, (rows,) in segments.split(x)]
    y = in_order(outputs, list(segments.rows.values()))
    return y.unflatten(0, segments.shape) if len(segments.shape) > 1 else y


def in_order(
    parts: Sequence[Tensor],  # [rows, ...] each
    where: Sequence[Rows],
) -> Tensor:  # [all rows, ...]
    """Concatenate parts of a batch in the original order of its rows."""
    ends = [rows.stop for rows in where if isinstance(rows, slice)]
    begins = [rows.start for rows in where if isinstance(rows, slice)]
    joined = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    if len(ends) == len(where) and begins == [0, *ends[:-1]]:
        return joined
    device = joined.device
    order = [torch.arange(r.start, r.stop, device=device) if isinstance(r, slice) else r.to(device) for r in where]
    return joined[torch.argsort(torch.cat(order))]


def parameters_by_task(tasks: Sequence[str], *groups: nn.ParameterList) -> dict[str, list[nn.Parameter]]:
    """List what each task owns, given lists of parameters in the order of the tasks."""
    own: Any = zip(*groups, strict=True)  # a ParameterList is typed as one of any values
    return {task: list(parameters) for task, parameters in zip(tasks, own, strict=True)}


class TaskDropout:
    """Dropout whose share may differ between tasks; plain dropout where it does not.

    Args:
        tasks: Names of the tasks.
        usual: Share for tasks that `own` does not name.
        own: Share by task.
    """

    def __init__(self, tasks: Sequence[str], usual: float, own: Mapping[str, float] | None = None) -> None:
        self.shares = tuple((own or {}).get(task, usual) for task in tasks)
        self.alike = len(set(self.shares)) == 1

    def __call__(self, x: Tensor, segments: Segments, training: bool) -> Tensor:  # [*ids, ..., in]
        """Apply each task's dropout to its rows."""
        if not training or self.shares[0] == 0 == max(self.shares):
            return x
        if self.alike:
            return F.dropout(x, self.shares[0])
        return by_task(x, segments, lambda task, rows: F.dropout(rows, self.shares[task]))


class Padding:
    """Remember the attention mask that a model is called with, also where heads call its stack of layers directly.

    Attributes:
        mask: 1 for tokens and 0 for padding; None where there is no mask `[batch, seq]`. A new tensor per call.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None

    def watch(self, model: nn.Module) -> None:
        """Hook a model, and the stack of layers inside it, to record the mask of every call."""
        inner: Any = getattr(model, "base_model", model)
        for module in (model, inner) if inner is not model else (model,):
            module.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:  # noqa: ARG002
        """Look at what a model is called with; masks of other shapes are made of the one that was seen before."""
        mask = options.get("attention_mask")
        if mask is None or (isinstance(mask, Tensor) and mask.dim() == 2):
            self.mask = mask

    def kept(self, shape: torch.Size) -> Tensor | None:
        """Return the mask where it fits an input of this shape, else None: all tokens count."""
        return self.mask if self.mask is not None and self.mask.shape == shape else None
