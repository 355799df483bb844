"""The Jacobian in one preallocated buffer: a row per task, and a view per parameter to write into."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.gradient_rows import GradientRows, mean_product
from mtl_opt.gradients.rows.layer_rows import BufferRows
from mtl_opt.gradients.rows.products import gramian_of, row_products, weighted_sum
from mtl_opt.gradients.rows.shards import local_shard


class RowBuffer(GradientRows):
    """Store one gradient row per task over the shared parameters, and the combined gradient.

    Args:
        parameters: Name and parameter of everything shared, in model order.
        num_tasks: Number of tasks.
        processes: The processes that fill rows too; None for this one alone.
        halves: Keep two rows per task, one for each half of its rows, until the step is closed.
        dtype: Precision of the rows, default that of the parameters and at least float32; bfloat16 halves the memory.
        device: Where the rows are kept; default the parameters' device.

    Attributes:
        rows: The rows while they are being filled, those of the second halves behind. `[tasks or 2 * tasks, params]`
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
        super().__init__(parameters, num_tasks, processes, halves)
        kept = dtype or self.columns.dtype
        place = device or self.columns.device
        self.rows = torch.zeros(self.num_rows, self.columns.size, dtype=kept, device=place)

    @property
    def jacobian(self) -> Tensor:  # [tasks, params]
        """The rows of the tasks."""
        return self.rows[: self.num_tasks]

    def view(self, name: str) -> Tensor:  # [rows, *shape]
        """Return the rows of one parameter in its own shape, a view."""
        return self.rows[:, self.tensors[name]].view(len(self.rows), *local_shard(self.parameters[name]).shape)

    def layer_rows(self, names: Mapping[str, str], transposed: frozenset[str]) -> BufferRows:
        """Return the place where the backward of a layer adds its gradients."""
        views = {own: self.view(name) for own, name in names.items()}
        turned = {own: view.mT if own in transposed else view for own, view in views.items()}
        return BufferRows(turned, names, self.reached)

    @property
    def version(self) -> int:
        """A number that changes whenever the rows are written to."""
        return self.rows._version

    def row_norms(self) -> Tensor:  # -> [rows]
        """Compute the norm of every row filled so far."""
        return self.rows.norm(dim=1)

    def snapshot(self) -> Tensor | None:  # -> [rows, params]
        """Copy the rows filled so far; None where all are 0."""
        return self.rows.clone() if bool(self.rows.any()) else None

    def restore(self, kept: Tensor | None) -> None:  # [rows, params]
        """Restore the rows of a snapshot."""
        if kept is None:
            self.rows.zero_()
        else:
            self.rows.copy_(kept)

    def sum_over_processes(self) -> None:
        """Sum the rows over the processes; FSDP2 has summed those of sharded parameters in the backward."""
        if not self.columns.sharded:
            self.processes.sum(self.rows)

    def two_sample(self, totals: Tensor) -> Tensor:  # [2 * tasks] -> [tasks, tasks]
        """Compute the inner products between the two halves' mean gradients, then join the halves' sums."""
        product = self._over_processes(gramian_of(self.rows))
        # Sums of counts·gradients add: the row of a task is that of its first half plus that of its second.
        self.jacobian.add_(self.rows[self.num_tasks :])
        return mean_product(product, totals)

    def divide(self, totals: Tensor) -> None:  # [tasks]
        """Turn sums of gradients into means."""
        self.jacobian.div_(torch.where(totals > 0, totals, 1).to(self.rows)[:, None])

    def zero(self) -> None:
        """Empty the rows and set every `.grad` to None."""
        self.rows.zero_()
        self.drop_grad()

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
        """Return the rows for a method that looks at every column."""
        if self.columns.sharded:
            raise ValueError("The parameters are sharded, so no process has whole rows; use a combiner of a Gramian.")
        return self.jacobian

    def _over_processes(self, gramian: Tensor) -> Tensor:
        """Sum the Gramians of the shards, where parameters are sharded, on the device of the model."""
        return (self.processes.sum(gramian) if self.columns.sharded else gramian).to(self.columns.device)

    def apply(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks] or {block: [tasks]}
        """Write the weighted sum of the rows into `combined`."""
        for columns, given in self.columns.weights_by_slice(weights, self.num_tasks):
            weighted_sum(self.jacobian[:, columns], given, self.combined[columns])

    def update_products(self) -> tuple[Tensor, float]:  # -> [tasks], |d|
        """Compute `J d` and `|d|` in one pass over the rows; shards hold partial sums of both."""
        products, square = row_products(self.jacobian, self.combined), self.combined.square().sum()
        if self.columns.sharded:
            products, square = self.processes.sum(products), self.processes.sum(square)
        return products, float(square.sqrt())
