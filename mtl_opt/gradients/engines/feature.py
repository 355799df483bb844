"""Engine `feature`: gradients of the tasks at the shared representation, one backward through the encoder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.gradient_rows import GradientRows
from mtl_opt.gradients.rows.products import gramian_of, weighted_sum
from mtl_opt.gradients.rows.write_grad import copy_checked, weights_by_columns


class FeatureRows(GradientRows):
    """Hold one gradient per task with respect to the representation `[tasks, features]` of one batch.

    Args:
        parameters: Name and parameter of everything shared.
        num_tasks: Number of tasks.
        processes: Who has other rows of the batch; None for this process alone.

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
        """Take the gradients of one batch."""
        self.features = features
        self._rows = torch.zeros(self.num_rows, features.numel(), dtype=self.columns.dtype, device=features.device)
        for task, row in rows.items():
            self._rows[task] = row.flatten()

    def sum_over_processes(self) -> None:
        """Do nothing: every process has rows of its own, and their inner products are added up."""

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
        """Give the rows to a method that looks at every column."""
        return self.jacobian

    def apply(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks]
        """Send the weighted sum of the rows back through the encoder."""
        ((_, given),) = weights_by_columns(weights, self.columns, self.num_rows)
        combined = torch.empty_like(self.jacobian[0])
        weighted_sum(self.jacobian, given, combined)
        self.put(combined)

    def put(self, gradient: Tensor) -> None:  # [features]
        """Send a gradient of the representation back through the encoder."""
        features = self.features
        assert features is not None
        checked = torch.empty(features.numel(), dtype=features.dtype, device=features.device)
        copy_checked(gradient, checked)
        wanted = list(self.parameters.values())
        found = torch.autograd.grad(features, wanted, checked.view_as(features), allow_unused=True)
        for columns, part in zip(self.tensors.values(), found, strict=True):
            self.combined[columns] = 0 if part is None else part.flatten().to(self.combined.dtype)
        self.processes.sum(self.combined)

    def zero(self) -> None:
        """Forget the batch and set every `.grad` to None."""
        self.features = None
        self._rows = torch.zeros(self.num_rows, 0, dtype=self.columns.dtype, device=self.columns.device)
        self.drop_grad()


def _no_blocks(by: object) -> ValueError:
    """Build the error for Gramians of parts of a representation."""
    return ValueError(f"Engine `feature` measures a representation, which has no blocks by {by}; use `one_pass`.")


class Feature:
    """Differentiate every task's loss down to the representation only, for encoder and heads models.

    One short backward per task through the heads, one through the encoder (the upper bound of MGDA-UB: O. Sener and
    V. Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018). What is lost: the Gramian is that of
    the representation, not of the parameters, so non-conflict holds there and only approximately below; and where
    every row belongs to one task the rows do not overlap, so that all cosines are 0. One micro-batch per step.

    Args:
        model: The model.
        buffer: Takes the gradients.
        private: Parameters of each task alone.
        path: Name of the module whose output is the representation: a tensor, or what has one first.

    Raises:
        ValueError: If there is no such module.
    """

    name = "feature"
    wires = False

    def __init__(
        self, model: nn.Module, buffer: FeatureRows, private: Sequence[Sequence[nn.Parameter]], path: str
    ) -> None:
        modules = dict(model.named_modules())
        if path not in modules:
            raise ValueError(f"`engine='feature:{path}'`: the model has no module `{path}`.")
        self.module, self.path = modules[path], path
        self.buffer = buffer
        self.private = private
        self.features: Tensor | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Watch the module for its output."""
        handle = self.module.register_forward_hook(self._see)
        try:
            yield
        finally:
            handle.remove()
            self.features = None

    def _see(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002 - the signature of a hook
        """Keep the representation."""
        self.features = output if isinstance(output, Tensor) else output[0]

    def agreed(self, counts: Tensor) -> Tensor:  # [tasks]
        """Say whose losses are to be differentiated."""
        return counts

    def backward(self, scaled: Tensor, present: Sequence[int]) -> None:  # [tasks]
        """Differentiate every present task's loss with respect to the representation and its own head."""
        if self.features is None or self.buffer.features is not None:
            raise ValueError(
                f"Engine `feature` takes one micro-batch per step, whose forward runs `{self.path}` inside "
                "`with grads.rows(ids):`."
            )
        rows = {}
        for task in present:
            wanted = [self.features, *self.private[task]]
            found = torch.autograd.grad(scaled[task], wanted, retain_graph=True, allow_unused=True)
            if found[0] is not None:
                rows[task] = found[0]
            for parameter, gradient in zip(self.private[task], found[1:], strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self.buffer.take(self.features, rows)

    def verify(self, scaled: Tensor, present: Sequence[int], tasks: Sequence[str]) -> None:  # [tasks]
        """Do nothing: rows may mix as they like."""
