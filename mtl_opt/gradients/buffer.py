"""The Jacobian in one preallocated buffer: a row per task, and a view per parameter to write into."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_opt.gradients.columns import Columns, local
from mtl_opt.gradients.processes import Processes

PIECE = 4096
"""Columns of one product of a Gramian."""

CHUNK = 2**20
"""Columns that are converted at a time where the rows are not kept in the precision of the parameters."""


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
        combined: The gradient that `write` hands to the optimizer. `[params]`
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
        self.combined = torch.zeros(self.columns.size, dtype=self.columns.dtype, device=self.columns.device)
        self._handed = [  # made once: for many small parameters making views would be most of handing over
            (parameter, self.combined[self.tensors[name]].view(local(parameter).shape))
            for name, parameter in self.parameters.items()
        ]

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
        """Show the rows of one parameter in its own shape.

        Args:
            name: Name of the parameter.

        Returns:
            A view into `rows`. `[rows, *shape]`
        """
        return self.rows[:, self.tensors[name]].view(len(self.rows), *local(self.parameters[name]).shape)

    def sum_over_processes(self) -> None:
        """Add up the rows of all processes; those of sharded parameters were added up by FSDP2 in the backward."""
        if not self.columns.sharded:
            self.processes.sum(self.rows)

    def two_sample(self, totals: Tensor) -> Tensor:  # [2 * tasks] -> [tasks, tasks]
        """Compute the inner products between the two halves' mean gradients, then join the halves' sums.

        Args:
            totals: Counts of each half. `[2 * tasks]`

        Returns:
            `J1 J2ᵀ`, which is not symmetric. `[tasks, tasks]`
        """
        size = len(self.jacobian)
        product = self._over_processes(_gramian(self.rows))[:size, size:]
        self.jacobian.add_(self.rows[size:])
        counts = totals.clamp(min=1).to(product)
        return product / counts[:size, None] / counts[None, size:]

    def divide(self, totals: Tensor) -> None:  # [tasks]
        """Turn sums of gradients into means.

        Args:
            totals: What each row is divided by; a row whose total is 0 stays as it is. `[tasks]`
        """
        self.jacobian.div_(torch.where(totals > 0, totals, 1).to(self.rows)[:, None])

    def zero(self) -> None:
        """Empty the rows and set every `.grad` to None."""
        self.rows.zero_()
        for parameter in self.parameters.values():
            parameter.grad = None

    def gramian(self) -> Tensor:  # [tasks, tasks]
        """Compute the inner products of all rows.

        Returns:
            The Gramian over all shared parameters. `[tasks, tasks]`
        """
        return self._over_processes(_gramian(self.jacobian))

    def gramians(self, by: str) -> dict[str, Tensor]:  # {block: [tasks, tasks]}
        """Compute one Gramian per block; they add up to the whole one.

        Args:
            by: "layer" or "tensor".

        Returns:
            Gramian of each block. `{block: [tasks, tasks]}`
        """
        blocks = self.columns.blocks(by)
        found = torch.stack([_gramian(self.jacobian[:, columns]) for columns in blocks.values()])
        return dict(zip(blocks, self._over_processes(found), strict=True))

    def gramian_over(self, over: str | Sequence[str]) -> Tensor:  # [tasks, tasks]
        """Compute the inner products over some layers only.

        Args:
            over: "all", "last" (the last layer), or names of layers.

        Returns:
            The Gramian over these layers. `[tasks, tasks]`
        """
        if over == "all":
            return self.gramian()
        names = self.columns.layers_over(over)
        return self._over_processes(torch.stack([_gramian(self.jacobian[:, self.layers[n]]) for n in names]).sum(0))

    def product(self, sums: Tensor) -> Tensor:  # [tasks, params] -> [tasks, tasks]
        """Compute the inner products of other rows with the same columns.

        Args:
            sums: The rows. `[tasks, params]`

        Returns:
            Their Gramian. `[tasks, tasks]`
        """
        return self._over_processes(_gramian(sums))

    def whole_rows(self) -> Tensor:  # [tasks, params]
        """Give the rows to a method that looks at every column.

        Returns:
            The rows. `[tasks, params]`

        Raises:
            ValueError: If the columns are spread over processes.
        """
        if self.columns.sharded:
            raise ValueError("The parameters are sharded, so no process has whole rows; use a combiner of a Gramian.")
        return self.jacobian

    def _over_processes(self, gramian: Tensor) -> Tensor:
        """Add up what the shards have, where the parameters are sharded."""
        return self.processes.sum(gramian) if self.columns.sharded else gramian

    def apply(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks] or {block: [tasks]}
        """Put the weighted sum of the rows into `combined`.

        Args:
            weights: One weight per task, for all columns `[tasks]` or for each block by name.
        """
        for columns, given in blocks_of(weights, self.columns, len(self.jacobian)):
            _weighted_sum(self.jacobian[:, columns], given, self.combined[columns])

    def put(self, gradient: Tensor) -> None:  # [params]
        """Copy a gradient into `combined`.

        Args:
            gradient: One number per column. `[params]`

        Raises:
            ValueError: If it has another shape: a copy would repeat it silently.
        """
        if gradient.shape != self.combined.shape:
            raise ValueError(
                f"`gradient` must be [{len(self.combined)}], one number per shared parameter, got shape "
                f"{tuple(gradient.shape)}."
            )
        self.combined.copy_(gradient)

    def hand_over(self) -> None:
        """Make the combined gradient the `.grad` of every shared parameter, without a copy where dtypes agree."""
        for parameter, view in self._handed:
            gradient = view.to(parameter.dtype)
            parameter.grad = _as_sharded(gradient, parameter) if self.columns.sharded else gradient


def blocks_of(
    weights: Tensor | Mapping[str, Tensor], columns: Columns, num_tasks: int
) -> list[tuple[slice, Tensor]]:  # [tasks] or {block: [tasks]}
    """Say which weights hold for which columns.

    Args:
        weights: One weight per task, for all columns `[tasks]` or for each block by name.
        columns: Where each block stands.
        num_tasks: Number of tasks.

    Returns:
        Columns and the weights that hold for them.

    Raises:
        ValueError: If the blocks are neither all layers nor all tensors, or weights are not one per task.
    """
    for given in [weights] if isinstance(weights, Tensor) else weights.values():
        if given.shape != (num_tasks,):
            raise ValueError(f"`weights` must be [{num_tasks}], one per task, got shape {tuple(given.shape)}.")
    if isinstance(weights, Tensor):
        return [(slice(0, columns.size), weights)]
    blocks = next((b for b in (columns.layers, columns.tensors) if set(b) == set(weights)), None)
    if blocks is None:
        raise ValueError(f"`weights` must have one entry per layer or per tensor, got {sorted(weights)[:5]}….")
    return [(at, weights[name]) for name, at in blocks.items()]


def _as_sharded(gradient: Tensor, parameter: nn.Parameter) -> Tensor:
    """Make this process's part of a gradient the gradient of a sharded parameter."""
    from torch.distributed.tensor import DTensor

    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        gradient, parameter.device_mesh, parameter.placements, run_check=False, shape=parameter.shape,
        stride=parameter.stride(),
    )  # fmt: skip


def _gramian(
    rows: Tensor,  # [tasks, columns]
) -> Tensor:  # [tasks, tasks]
    """Compute `J Jᵀ` piece by piece: sums of short products round less, and threads share the pieces."""
    if rows.dtype in {torch.bfloat16, torch.float16}:  # in float32, without a copy of all rows
        parts = rows.split(CHUNK, dim=1)
        return torch.stack([_gramian(part.float()) for part in parts]).sum(0)
    whole = rows.shape[1] // PIECE
    pieces = rows[:, : whole * PIECE].view(len(rows), whole, PIECE).transpose(0, 1)
    rest = rows[:, whole * PIECE :]
    return (pieces @ pieces.mT).sum(0) + rest @ rest.T


def _weighted_sum(
    rows: Tensor,  # [tasks, columns]
    weights: Tensor,  # [tasks]
    out: Tensor,  # [columns]
) -> None:
    """Write `wᵀ J` into `out`, in the precision and on the device of `out`."""
    if rows.dtype == out.dtype and rows.device == out.device:
        torch.mv(rows.T, weights.to(rows), out=out)
        return
    for part, target in zip(rows.split(CHUNK, dim=1), out.split(CHUNK), strict=True):
        target.copy_(weights.to(rows.device, out.dtype) @ part.to(out.dtype))
