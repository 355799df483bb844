"""One gradient per task at the shared representation: what engine `feature` keeps."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.gradient_rows import GradientRows, copy_checked
from mtl_opt.gradients.rows.products import gramian_of, weighted_sum


class FeatureRows(GradientRows):
    """Store one gradient per task at the representation of one batch, `[tasks, features]`.

    Args:
        parameters: Name and parameter of everything shared.
        num_tasks: Number of tasks.
        processes: The processes that have other rows of the batch; None for this one alone.

    `combined` is the gradient of the shared parameters `[params]`; the rows have columns of their own.
    """

    def __init__(
        self, parameters: Sequence[tuple[str, nn.Parameter]], num_tasks: int, processes: Processes | None = None
    ) -> None:
        super().__init__(parameters, num_tasks, processes)
        self.features: Tensor | None = None
        self.zero()

    @property
    def jacobian(self) -> Tensor:  # [tasks, features]
        """The rows."""
        return self._rows

    @property
    def version(self) -> int:
        """Constant: no penalty can reach the rows of a representation."""
        return 0

    def take(self, features: Tensor, rows: Mapping[int, Tensor]) -> None:  # [batch, ...], [batch, ...]
        """Store the gradients of one batch."""
        self.features = features
        self._rows = torch.zeros(self.num_rows, features.numel(), dtype=self.columns.dtype, device=features.device)
        for task, row in rows.items():
            self._rows[task] = row.flatten()

    def sum_over_processes(self) -> None:
        """Do nothing: processes have different features, so their inner products are summed instead."""

    def divide(self, totals: Tensor) -> None:  # [tasks]
        """Turn counts times gradients into gradients."""
        self.jacobian.div_(torch.where(totals > 0, totals, 1).to(self.jacobian)[:, None])

    def gramian(self) -> Tensor:  # [tasks, tasks]
        """Compute the inner products of the gradients at the representation."""
        return self.processes.sum(gramian_of(self.jacobian))

    def gramians(self, by: str) -> dict[str, Tensor]:
        """Refuse: the representation has no layers."""
        raise _no_blocks(by)

    def gramian_over(self, over: str | Sequence[str]) -> Tensor:
        """Refuse: the representation has no layers."""
        raise _no_blocks(over)

    def two_sample(self, totals: Tensor) -> Tensor:  # noqa: ARG002 - refused when the engine is built
        """Refuse: the representation is not dealt to halves."""
        raise ValueError("Engine `feature` cannot tell two halves of the rows apart; use `one_pass`.")

    def product(self, sums: Tensor) -> Tensor:  # [tasks, features] -> [tasks, tasks]
        """Compute the inner products of other rows with the same columns."""
        return self.processes.sum(gramian_of(sums))

    def whole_rows(self) -> Tensor:  # [tasks, features]
        """Return the rows for a method that looks at every column."""
        return self.jacobian

    def apply(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks]
        """Back-propagate the weighted sum of the rows through the encoder."""
        ((_, given),) = self.columns.weights_by_slice(weights, self.num_rows)
        combined = torch.empty_like(self.jacobian[0])
        weighted_sum(self.jacobian, given, combined)
        self.put(combined)

    def put(self, gradient: Tensor) -> None:  # [features]
        """Back-propagate a gradient at the representation through the encoder."""
        features = self.features
        assert features is not None
        checked = torch.empty(features.numel(), dtype=features.dtype, device=features.device)
        copy_checked(gradient, checked)
        wanted = list(self.parameters.values())
        found = torch.autograd.grad(features, wanted, checked.view_as(features), allow_unused=True)
        for (name, columns), part in zip(self.tensors.items(), found, strict=True):
            if part is not None:
                self.reached.add(name)
            self.combined[columns] = 0 if part is None else part.flatten().to(self.combined.dtype)
        self.processes.sum(self.combined)

    def zero(self) -> None:
        """Release the batch and set every `.grad` to None."""
        self.features = None
        self._rows = torch.zeros(self.num_rows, 0, dtype=self.columns.dtype, device=self.columns.device)
        self.drop_grad()


def _no_blocks(by: object) -> ValueError:
    """Build the error for Gramians of parts of a representation."""
    return ValueError(f"Engine `feature` measures a representation, which has no blocks by {by}; use `one_pass`.")
