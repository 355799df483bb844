"""Low-rank adapters of our own: one for all tasks, or one for each, with the rows routed inside."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mtl_opt.models.lora import LoraSettings
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.routing import by_task, parameters_by_task, rows_of_tasks


class Sized(Protocol):
    """What an adapter must know of the layer (or part of one) that it adds to."""

    @property
    def in_features(self) -> int:
        """Features of an input."""

    @property
    def out_features(self) -> int:
        """Features of an output."""

    @property
    def device(self) -> torch.device:
        """Where its weight is."""


def fresh_a(rank: int, layer: Sized) -> nn.Parameter:  # [rank, in]
    """Draw the first matrix of an adapter as peft does."""
    weight = nn.Parameter(torch.empty(rank, layer.in_features, device=layer.device))
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return weight


def fresh_b(layer: Sized, rank: int) -> nn.Parameter:  # [out, rank]
    """Create the second matrix of an adapter: zeros, so that training starts from the base model."""
    return nn.Parameter(torch.zeros(layer.out_features, rank, device=layer.device))


def low_rank_pair(layer: Sized, first: Sequence[int], second: int) -> tuple[nn.Linear, nn.Linear]:
    """Build `A` `[sum(first), in]`, drawn in blocks of `first` rows, and `B` `[out, second]`, zero."""
    a = nn.Linear(layer.in_features, sum(first), bias=False)
    b = nn.Linear(second, layer.out_features, bias=False)
    a.weight = nn.Parameter(torch.cat([fresh_a(rows, layer) for rows in first]).detach())
    b.weight = fresh_b(layer, second)
    return a, b


class SharedLora(nn.Module):
    """One adapter for all rows: `B A x` times the scale, as peft computes it.

    Args:
        layer: The layer it adds to.
        lora: Rank, scale and dropout.
    """

    def __init__(self, layer: Sized, lora: LoraSettings) -> None:
        super().__init__()
        self.lora_A, self.lora_B = low_rank_pair(layer, [lora.rank], lora.rank)
        self.scaling = lora.scaling
        self.dropout = nn.Dropout(lora.dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x.to(self.lora_A.weight.dtype))
        return self.lora_B(self.lora_A(x)) * self.scaling

    def lora_of(self, task: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - the same for all
        """Return the low-rank factors.

        Args:
            task: Any task.

        Returns:
            `A` `[rank, in]` and `B` with the scale in it `[out, rank]`.
        """
        return self.lora_A.weight, self.lora_B.weight * self.scaling


class PrivateLora(nn.Module):
    """One adapter per task; each row goes through that of its task.

    Args:
        layer: The layer it adds to.
        lora: Rank and scale of every task's adapter, and the dropout of those that `dropout` does not name.
        tasks: Names of the tasks.
        dropout: Dropout by task.
    """

    def __init__(
        self, layer: LinearLayer, lora: LoraSettings, tasks: Sequence[str], dropout: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.task_A = nn.ParameterList(fresh_a(lora.rank, layer) for _ in tasks)
        self.task_B = nn.ParameterList(fresh_b(layer, lora.rank) for _ in tasks)
        self.scaling = lora.scaling
        self.dropout = tuple((dropout or {}).get(task, lora.dropout) for task in tasks)

    @override
    def forward(self, x: Tensor) -> Tensor:
        segments = rows_of_tasks(x, len(self.tasks))
        x = x.to(self.task_A[0].dtype)
        if not segments.equal or len(set(self.dropout)) > 1:
            return by_task(x, segments, self._of_task) * self.scaling
        x = F.dropout(x, self.dropout[0], self.training)
        rows = x.reshape(len(self.tasks), -1, x.shape[-1])
        y = rows @ torch.stack(list(self.task_A)).mT @ torch.stack(list(self.task_B)).mT
        return y.view(*x.shape[:-1], -1) * self.scaling

    def _of_task(self, task: int, x: Tensor) -> Tensor:
        """Run the rows of one task through its adapter."""
        x = F.dropout(x, self.dropout[task], self.training)
        return F.linear(F.linear(x, self.task_A[task]), self.task_B[task])

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List the private parameters by task.

        Returns:
            The two matrices of each task.
        """
        return parameters_by_task(self.tasks, self.task_A, self.task_B)

    def lora_of(self, task: int) -> tuple[Tensor, Tensor]:
        """Return the low-rank factors of a task.

        Args:
            task: Its index.

        Returns:
            `A` `[rank, in]` and `B` with the scale in it `[out, rank]`.
        """
        return self.task_A[task], self.task_B[task] * self.scaling
