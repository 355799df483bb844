"""The Jacobian in one preallocated buffer: a row per task, and a view per parameter to write into."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.columns import Columns, local
from mtl_opt.gradients.rows.layer_rows import BufferRows
from mtl_opt.gradients.rows.products import gramian_of, weighted_sum
from mtl_opt.gradients.rows.write_grad import blocks_of, copy_checked, hand_over


class RowBuffer:
    """Hold one gradient row per task over the shared parameters, and the combined gradient.

    Args:
        parameters: Name and parameter of everything shared, in model order.
        num_tasks: Number of tasks.
        processes: Who fills rows too; None for this process alone.
        halves: Keep two rows per task, one for each half of its rows, until the step is closed.
        dtype: Precision of the rows, default that of the parameters and at least float32; bfloat16 halves the memory.
        device: Where the rows are kept; default the parameters' device.

    Attributes:
        rows: The rows while they are being filled, those of the second halves behind. `[tasks or 2 * tasks, params]`
        jacobian: The rows of the tasks. `[tasks, params]`
        columns: Where each parameter stands in a row.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, nn.Parameter]],
        num_tasks: int,
        processes: Processes | None = None,
        *,
        halves: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.columns = Columns(parameters)
        self.processes = processes or Processes()
        kept = dtype or self.columns.dtype
        place = device or self.columns.device
        self.rows = torch.zeros(num_tasks * (2 if halves else 1), self.columns.size, dtype=kept, device=place)
        self.jacobian = self.rows[:num_tasks]

    @cached_property
    def combined(self) -> Tensor:  # [params]
        """The gradient that `write` hands to the optimizer, there from `write` to `zero` like any `.grad`."""
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

    def view(self, name: str) -> Tensor:  # [rows, *shape]
        """Show the rows of one parameter in its own shape."""
        return self.rows[:, self.tensors[name]].view(len(self.rows), *local(self.parameters[name]).shape)

    def layer_rows(self, names: Mapping[str, str], transposed: frozenset[str]) -> BufferRows:
        """Say where a layer's backward puts its gradients."""
        views = {own: self.view(name) for own, name in names.items()}
        return BufferRows({own: view.mT if own in transposed else view for own, view in views.items()})

    @property
    def num_rows(self) -> int:
        """Number of rows that are filled, two per task where there are halves."""
        return len(self.rows)

    @property
    def version(self) -> int:
        """A number that changes whenever the rows are written to."""
        return self.rows._version

    def row_norms(self) -> Tensor:  # -> [rows]
        """Measure the rows while they are being filled."""
        return self.rows.norm(dim=1)

    def snapshot(self) -> Tensor | None:  # -> [rows, params]
        """Copy the rows while they are being filled."""
        return self.rows.clone() if bool(self.rows.any()) else None

    def restore(self, kept: Tensor | None) -> None:  # [rows, params]
        """Put the rows back."""
        if kept is None:
            self.rows.zero_()
        else:
            self.rows.copy_(kept)

    def sum_over_processes(self) -> None:
        """Add up the rows of all processes; those of sharded parameters were added up by FSDP2 in the backward."""
        if not self.columns.sharded:
            self.processes.sum(self.rows)

    def two_sample(self, totals: Tensor) -> Tensor:  # [2 * tasks] -> [tasks, tasks]
        """Compute the inner products between the two halves' mean gradients, then join the halves' sums."""
        size = len(self.jacobian)
        product = self._over_processes(gramian_of(self.rows))[:size, size:]
        self.jacobian.add_(self.rows[size:])
        counts = totals.clamp(min=1).to(product)
        return product / counts[:size, None] / counts[None, size:]

    def divide(self, totals: Tensor) -> None:  # [tasks]
        """Turn sums of gradients into means."""
        self.jacobian.div_(torch.where(totals > 0, totals, 1).to(self.rows)[:, None])

    def zero(self) -> None:
        """Empty the rows and set every `.grad` to None."""
        self.rows.zero_()
        self.__dict__.pop("combined", None)
        for parameter in self.parameters.values():
            parameter.grad = None

    def gramian(self) -> Tensor:  # [tasks, tasks]
        """Compute the inner products of all rows."""
        return self._over_processes(gramian_of(self.jacobian))

    def gramians(self, by: str) -> dict[str, Tensor]:  # {block: [tasks, tasks]}
        """Compute one Gramian per block; they add up to the whole one."""
        blocks = self.columns.blocks(by)
        found = torch.stack([gramian_of(self.jacobian[:, columns]) for columns in blocks.values()])
        return dict(zip(blocks, self._over_processes(found), strict=True))

    def gramian_over(self, over: str | Sequence[str]) -> Tensor:  # [tasks, tasks]
        """Compute the inner products over some layers only."""
        if over == "all":
            return self.gramian()
        names = self.columns.layers_over(over)
        return self._over_processes(torch.stack([gramian_of(self.jacobian[:, self.layers[n]]) for n in names]).sum(0))

    def product(self, sums: Tensor) -> Tensor:  # [tasks, params] -> [tasks, tasks]
        """Compute the inner products of other rows with the same columns."""
        return self._over_processes(gramian_of(sums))

    def whole_rows(self) -> Tensor:  # [tasks, params]
        """Give the rows to a method that looks at every column."""
        if self.columns.sharded:
            raise ValueError("The parameters are sharded, so no process has whole rows; use a combiner of a Gramian.")
        return self.jacobian

    def _over_processes(self, gramian: Tensor) -> Tensor:
        """Add up what the shards have, where the parameters are sharded; bring it to where the model is."""
        return (self.processes.sum(gramian) if self.columns.sharded else gramian).to(self.columns.device)

    def apply(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks] or {block: [tasks]}
        """Put the weighted sum of the rows into `combined`."""
        for columns, given in blocks_of(weights, self.columns, len(self.jacobian)):
            weighted_sum(self.jacobian[:, columns], given, self.combined[columns])

    def put(self, gradient: Tensor) -> None:  # [params]
        """Copy a gradient into `combined`."""
        copy_checked(gradient, self.combined)

    def hand_over(self) -> None:
        """Make the combined gradient the `.grad` of every shared parameter, without a copy where dtypes agree."""
        views = [(p, self.combined[self.tensors[name]].view(local(p).shape)) for name, p in self.parameters.items()]
        hand_over(views)
