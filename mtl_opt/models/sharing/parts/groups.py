"""One adapter per group of tasks: the rows of a group are gathered, and an inner context says whose they are."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mtl_opt.batch import Segments, current_task_rows, task_rows
from mtl_opt.models.lora import LoraSettings
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import SharedLora, fresh_a, fresh_b
from mtl_opt.models.sharing.parts.routing import Rows, in_order, rows_of_tasks


class OwnLora(nn.Module):
    """The adapter of one task alone, run on its rows only.

    Args:
        layer: The layer it adds to.
        lora: Rank and scale.
        dropout: Share of its inputs that is dropped in training.
    """

    def __init__(self, layer: LinearLayer, lora: LoraSettings, dropout: float) -> None:
        super().__init__()
        self.task_A, self.task_B = fresh_a(lora.rank, layer), fresh_b(layer, lora.rank)
        self.scaling = lora.scaling
        self.dropout = dropout

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x.to(self.task_A.dtype), self.dropout, self.training)
        return F.linear(F.linear(x, self.task_A), self.task_B) * self.scaling

    def lora_of(self, task: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - it has one
        """Return the low-rank factors."""
        return self.task_A, self.task_B * self.scaling


class GroupLora(nn.Module):
    """One adapter per group of tasks; that of a group of one task is private.

    Args:
        layer: The layer it adds to.
        lora: Rank, scale and dropout of every group's adapter.
        tasks: Names of all tasks.
        groups: Indices of the tasks of every group; together every task once.
        dropout: Dropout by task, for groups of one.
    """

    def __init__(
        self,
        layer: LinearLayer,
        lora: LoraSettings,
        tasks: Sequence[str],
        groups: Sequence[Sequence[int]],
        dropout: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.members = tuple(tuple(group) for group in groups)
        own = [(dropout or {}).get(self.tasks[group[0]], lora.dropout) for group in self.members]
        self.groups = nn.ModuleList(
            SharedLora(layer, lora) if len(group) > 1 else OwnLora(layer, lora, p)
            for group, p in zip(self.members, own, strict=True)
        )
        self._group_of = {task: number for number, group in enumerate(self.members) for task in group}

    @override
    def forward(self, x: Tensor) -> Tensor:
        segments = rows_of_tasks(x, len(self.tasks))
        gathered = _gathered(self.members, segments)
        if len(gathered) == 1:  # all rows are of one group
            return self.groups[next(iter(gathered))](x)
        flat = x.flatten(0, len(segments.shape) - 1)
        parts = []
        for group, (rows, ids) in gathered.items():
            with task_rows(ids):  # the engine takes the gradients of these rows apart by it
                parts.append(self.groups[group](flat[rows]))
        y = in_order(parts, [rows for rows, _ in gathered.values()])
        return y.unflatten(0, segments.shape) if len(segments.shape) > 1 else y

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List the private parameters by task.

        Returns:
            The matrices of every task that is a group of its own.
        """
        alone = {group[0]: self.groups[number] for number, group in enumerate(self.members) if len(group) == 1}
        return {self.tasks[task]: list(adapter.parameters()) for task, adapter in alone.items()}

    def lora_of(self, task: int) -> tuple[Tensor, Tensor]:
        """Return the low-rank factors of a task.

        Args:
            task: Its index.

        Returns:
            `A` `[rank, in]` and `B` with the scale in it `[out, rank]`, those of its group.
        """
        adapter: SharedLora | OwnLora = self.groups[self._group_of[task]]  # type: ignore[assignment]
        return adapter.lora_of(task)


Gathered = dict[int, tuple[Rows, Tensor]]
"""Rows of every group that is present, and the task of each."""

_KNOWN: list[tuple[Tensor, dict[tuple[tuple[int, ...], ...], Gathered]]] = []
"""What was gathered for the ids that were open last: all layers of a forward, and of its recomputation, ask for it."""


def _gathered(members: tuple[tuple[int, ...], ...], segments: Segments) -> Gathered:
    """Find the rows of every group, once for all layers; the gathered ids keep their identity with it."""
    ids = current_task_rows()
    assert ids is not None
    if not _KNOWN or _KNOWN[0][0] is not ids:
        _KNOWN[:] = [(ids, {})]
    known = _KNOWN[0][1]
    if members not in known:
        flat, found = ids.flatten(), {}
        for number, group in enumerate(members):
            rows = [segments.rows[task] for task in group if task in segments.rows]
            if rows:
                joined = _joined(rows, ids.device)
                found[number] = (joined, flat[joined])
        known[members] = found
    return known[members]


def _joined(rows: Sequence[Rows], device: torch.device) -> Rows:
    """Join the rows of several tasks: one slice where they stand behind each other, so that nothing is copied."""
    ends = [r.stop for r in rows if isinstance(r, slice)]
    if len(ends) == len(rows) and [r.start for r in rows[1:] if isinstance(r, slice)] == ends[:-1]:
        return slice(rows[0].start, ends[-1])  # type: ignore[union-attr]
    return torch.cat([torch.arange(r.start, r.stop, device=device) if isinstance(r, slice) else r for r in rows])
