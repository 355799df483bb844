"""Per-tensor Gramians in place of rows: what `two_pass` keeps between its two backwards."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.gradient_rows import GradientRows, mean_product
from mtl_opt.gradients.rows.products import gramian_of
from mtl_opt.gradients.rows.scratch_rows import ScratchRows


class BlockGramians(GradientRows):
    """Store the inner products of the task gradients by parameter, and the combined gradient.

    The first backward multiplies every piece of a gradient with itself and discards it; the second adds each piece to
    the combined gradient with the weights found in between, unless the layer applies them itself.

    Args:
        parameters: Name and parameter of everything shared, in model order.
        num_tasks: Number of tasks.
        processes: The processes that compute gradients too; None for this one alone.
        halves: Keep two rows per task until the step is closed.

    Attributes:
        second_pass: Runs the backward of the step again; None before the first one, and once it has run.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, nn.Parameter]],
        num_tasks: int,
        processes: Processes | None = None,
        *,
        halves: bool = False,
    ) -> None:
        super().__init__(parameters, num_tasks, processes, halves)
        self.second_pass: Callable[[], None] | None = None
        self._products: dict[str, Tensor] = {}  # {parameter: [rows, rows]}
        self._weights: dict[str, Tensor] = {}  # {parameter: [rows]}, while the second backward runs
        self._pieces = 0
        self.zero()

    @property
    def version(self) -> int:
        """Number of pieces that were taken."""
        return self._pieces

    @property
    def jacobian(self) -> Tensor:
        """Refuse: there are no rows."""
        raise ValueError("Engine `two_pass` keeps no rows; use `one_pass` or `per_task` for what needs the Jacobian.")

    def whole_rows(self) -> Tensor:
        """Refuse: there are no rows."""
        return self.jacobian

    def layer_rows(self, names: Mapping[str, str], transposed: frozenset[str]) -> ScratchRows:
        """Return the place where the backward of a layer adds its gradients."""
        return ScratchRows(self, names, transposed)

    def zeros(self, *shape: int) -> Tensor:  # -> [rows, *shape]
        """Allocate a piece of all rows."""
        return torch.zeros(self.num_rows, *shape, dtype=self.columns.dtype, device=self.columns.device)

    def target(self, name: str, transposed: bool) -> Tensor:  # -> [*shape]
        """Return the part of the combined gradient that belongs to a parameter, as its layer has it."""
        view = self.combined_view(name)
        return view.mT if transposed else view

    def weights_of(self, name: str) -> Tensor | None:  # -> [rows]
        """Return the weights of the second backward; None in the first."""
        return self._weights.get(name)

    def take(self, name: str, piece: Tensor, where: slice | Tensor, transposed: bool) -> None:  # piece [rows, *shape]
        """Accumulate the products of a piece with itself (first backward), or its weighted sum (second)."""
        self._pieces += 1
        self.reached.add(name)
        if not self._weights:
            # Inner products do not depend on the layout, and the transpose of a transposed piece needs no copy.
            if piece.dim() == 3 and piece.mT.is_contiguous():
                piece = piece.mT
            # Before the product: (Σ_p J_p)(Σ_p J_p)ᵀ has the cross terms between processes, Σ_p J_p J_pᵀ has not.
            self.processes.sum(piece)
            self._products[name] = self._products[name] + gramian_of(
                piece.flatten(1)
            )  # not in place: a snapshot shares the tensor
            return
        found = torch.tensordot(self._weights[name].to(piece), piece, dims=1)
        target = self.target(name, transposed)
        if isinstance(where, slice):
            target[where].add_(found)
        else:
            target.index_add_(0, where, found)

    def sum_over_processes(self) -> None:
        """Do nothing: `take` has summed the pieces."""

    def two_sample(self, totals: Tensor) -> Tensor:  # [2 * tasks] -> [tasks, tasks]
        """Compute the inner products between the two halves' mean gradients, then join the halves."""
        product, size = self._sum(self._products), self.num_tasks
        # ⟨g1 + g2, h1 + h2⟩ is the sum of the four blocks between the halves of two tasks.
        for name, found in self._products.items():
            self._products[name] = found.view(2, size, 2, size).sum((0, 2))
        return mean_product(product, totals)

    def divide(self, totals: Tensor) -> None:  # [tasks]
        """Turn products of sums into products of means."""
        self._totals = torch.where(totals > 0, totals, 1)
        for name, found in self._products.items():
            scale = self._totals.to(found)
            self._products[name] = found / scale[:, None] / scale[None, :]

    def gramian(self) -> Tensor:  # [tasks, tasks]
        """Sum the inner products of all parameters."""
        return self._sum(self._products)

    def gramians(self, by: str) -> dict[str, Tensor]:  # {block: [tasks, tasks]}
        """Sum the inner products to one Gramian per block."""
        return {name: self._over(columns) for name, columns in self.columns.blocks(by).items()}

    def gramian_over(self, over: str | Sequence[str]) -> Tensor:  # [tasks, tasks]
        """Sum the inner products over some layers only."""
        names = self.columns.layers_over(over)
        return torch.stack([self._over(self.layers[name]) for name in names]).sum(0)

    def product(self, sums: Tensor) -> Tensor:  # noqa: ARG002 - there is no window without rows
        """Refuse: there are no rows."""
        return self.jacobian

    def _over(self, block: slice) -> Tensor:
        """Sum the products of the parameters in a block of columns."""
        inside = {n: p for n, p in self._products.items() if block.start <= self.tensors[n].start < block.stop}
        return self._sum(inside)

    @staticmethod
    def _sum(products: Mapping[str, Tensor]) -> Tensor:
        """Sum the inner products of several parameters."""
        return torch.stack(list(products.values())).sum(0)

    def apply(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks] or {block: [tasks]}
        """Run the second backward, which adds every piece to the combined gradient with its task's weight."""
        if self.second_pass is None:
            raise ValueError("The gradient of this step is already written, and engine `two_pass` keeps no rows.")
        for columns, given in self.columns.weights_by_slice(weights, self.num_tasks):
            # Pieces hold sums of counts·gradients: w / total turns their weighted sum into that of the means.
            own = (given.to(self._totals) / self._totals).repeat(self.num_rows // self.num_tasks)
            inside = [n for n, at in self.tensors.items() if columns.start <= at.start < columns.stop]
            self._weights |= dict.fromkeys(inside, own)
        self.combined.zero_()
        try:
            self.second_pass()
        finally:
            self._weights, self.second_pass = {}, None
        self.processes.sum(self.combined)

    def zero(self) -> None:
        """Clear the products and set every `.grad` to None."""
        self.drop_grad()
        size, like = self.num_rows, self.columns
        self._products = {n: torch.zeros(size, size, dtype=like.dtype, device=like.device) for n in self.tensors}
        self._totals = torch.ones(self.num_tasks)
        self.second_pass = None

    def row_norms(self) -> Tensor:  # -> [rows]
        """Compute the norm of every row."""
        return self.gramian().diagonal().clamp(min=0).sqrt()

    def snapshot(self) -> dict[str, Tensor]:
        """Return the products as they are now."""
        return dict(self._products)

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Restore the products of a snapshot."""
        self._products = dict(kept)
