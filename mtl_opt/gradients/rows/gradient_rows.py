"""The interface of all storage of task gradients, and what the three kinds share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.columns import Columns
from mtl_opt.gradients.rows.shards import local_shard, sharded_like


class GradientRows(ABC):
    """Store the gradients of all tasks from the first backward of a step until their combination is written.

    A row belongs to one task, or to one half of a task's batch rows: `[rows]` is `[tasks]` or `[2 * tasks]`, the
    second halves behind.

    Args:
        parameters: Name and parameter of everything shared, in model order.
        num_tasks: Number of tasks.
        processes: The processes that fill rows too; None for this one alone.
        halves: Keep two rows per task until the step is closed.

    Attributes:
        columns: Where each parameter stands in a row.
        num_rows: Number of rows that are filled.
        reached: Names of the parameters that a gradient of the step has reached.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, nn.Parameter]],
        num_tasks: int,
        processes: Processes | None = None,
        halves: bool = False,
    ) -> None:
        self.columns = Columns(parameters)
        self.processes = processes or Processes()
        self.num_tasks = num_tasks
        self.num_rows = num_tasks * (2 if halves else 1)
        self.reached: set[str] = set()

    @cached_property
    def combined(self) -> Tensor:  # [params]
        """The combined gradient; like any `.grad` it lives from `write` to `zero`."""
        return self.columns.empty_row()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The shared parameters by name, in the order of the columns."""
        return self.columns.parameters

    @property
    def tensors(self) -> dict[str, slice]:
        """Columns of each parameter, by name."""
        return self.columns.tensors

    @property
    def layers(self) -> dict[str, slice]:
        """Columns of each layer, by name."""
        return self.columns.layers

    def combined_view(self, name: str) -> Tensor:  # -> [*shape]
        """Return the part of the combined gradient that belongs to one parameter, in its shape."""
        return self.combined[self.tensors[name]].view(local_shard(self.parameters[name]).shape)

    def write_grad(self) -> None:
        """Set the `.grad` of what was reached to its part of the combined gradient, a view where dtypes agree."""
        reached = self._reached_anywhere()
        for name, parameter in self.parameters.items():
            if name not in reached:  # not zeros: weight decay and momentum must not move it
                parameter.grad = None
                continue
            found = self.combined_view(name).to(parameter.dtype)
            if not parameter.is_contiguous():  # fused optimizers read `.grad` with the strides of the parameter
                found = torch.empty_like(local_shard(parameter)).copy_(found)
            parameter.grad = sharded_like(found, parameter)

    def _reached_anywhere(self) -> set[str]:
        """Return the parameters that a gradient has reached in any process."""
        if self.processes.world == 1 or not self.parameters:
            return self.reached
        flags = torch.tensor([float(name in self.reached) for name in self.parameters], device=self.columns.device)
        found = self.processes.sum(flags).tolist()
        return {name for name, flag in zip(self.parameters, found, strict=True) if flag}

    def drop_grad(self) -> None:
        """Set every `.grad` to None."""
        self.__dict__.pop("combined", None)
        self.reached.clear()
        for parameter in self.parameters.values():
            parameter.grad = None

    @property
    @abstractmethod
    def jacobian(self) -> Tensor:  # [tasks, params]
        """The rows of the tasks."""

    @property
    @abstractmethod
    def version(self) -> int:
        """A number that changes whenever gradients are added."""

    @abstractmethod
    def whole_rows(self) -> Tensor:  # -> [tasks, params]
        """Return the rows for a method that looks at every column."""

    @abstractmethod
    def sum_over_processes(self) -> None:
        """Sum the gradients over the processes."""

    @abstractmethod
    def divide(self, totals: Tensor) -> None:  # [tasks]
        """Turn sums of counts times gradients into mean gradients."""

    @abstractmethod
    def two_sample(self, totals: Tensor) -> Tensor:  # [2 * tasks] -> [tasks, tasks]
        """Compute the inner products between the two halves' mean gradients, then join the halves."""

    @abstractmethod
    def gramian(self) -> Tensor:  # -> [tasks, tasks]
        """Compute the inner products over all shared parameters."""

    @abstractmethod
    def gramians(self, by: str) -> dict[str, Tensor]:  # -> {block: [tasks, tasks]}
        """Compute one Gramian per layer or tensor; they add up to the whole one."""

    @abstractmethod
    def gramian_over(self, over: str | Sequence[str]) -> Tensor:  # -> [tasks, tasks]
        """Compute the inner products over some layers only."""

    @abstractmethod
    def product(self, sums: Tensor) -> Tensor:  # [tasks, params] -> [tasks, tasks]
        """Compute the inner products of other rows with the same columns."""

    @abstractmethod
    def apply(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks] or {block: [tasks]}
        """Compute the combined gradient as the weighted sum of the rows."""

    def put(self, gradient: Tensor) -> None:  # [params]
        """Copy a vector into the combined gradient."""
        copy_checked(gradient, self.combined)

    def update_products(self) -> tuple[Tensor, float] | None:  # -> [tasks], |d|
        """Compute `J d` and `|d|` for the gradient `d` that was written; None where no rows are kept.

        With weights `w` this is `G w` and needs no rows. A method that looks at the Jacobian itself (GradDrop), or
        whose weights differ from block to block, leaves only the gradient. Every process must ask.
        """
        return None

    @abstractmethod
    def zero(self) -> None:
        """Empty the rows and set every `.grad` to None."""


def copy_checked(gradient: Tensor, target: Tensor) -> None:  # [columns], [columns]
    """Copy a vector that the caller made, or raise for its shape."""
    if gradient.shape != target.shape:
        raise ValueError(
            f"`gradient` must be [{len(target)}], one number per shared parameter, got shape {tuple(gradient.shape)}."
        )
    target.copy_(gradient)


def mean_product(product: Tensor, totals: Tensor) -> Tensor:  # [2 * tasks, 2 * tasks], [2 * tasks] -> [tasks, tasks]
    """Select the block between the halves from the products of sums, and divide it by both counts."""
    size = len(totals) // 2
    counts = torch.where(totals > 0, totals, 1).to(product)
    return product[:size, size:] / counts[:size, None] / counts[None, size:]
