"""Engine `feature`: gradients of the tasks at the shared representation, one backward through the encoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mtl_opt.gradients.rows.feature_rows import FeatureRows
from mtl_opt.gradients.step.loss_roots import ScaledLosses


class Feature:
    """Differentiate every task's loss down to the representation only, for encoder and heads models.

    One short backward per task through the heads, one through the encoder (the upper bound of MGDA-UB: O. Sener and
    V. Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018). What is lost: the Gramian is that of
    the representation, not of the parameters, so non-conflict holds there and only approximately below; and where
    every row belongs to one task the rows do not overlap, so that all cosines are 0. One micro-batch per step.

    Args:
        model: The model.
        buffer: Holds the gradients at the representation.
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
        """Record the output of the module during the forward."""
        handle = self.module.register_forward_hook(self._record)
        try:
            yield
        finally:
            handle.remove()
            self.features = None

    def _record(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002 - the signature of a hook
        """Record the representation."""
        self.features = output if isinstance(output, Tensor) else output[0]

    def agreed_counts(self, counts: Tensor) -> Tensor:  # [tasks]
        """Return the counts that decide which losses are differentiated."""
        return counts

    def backward(self, losses: ScaledLosses, present: Sequence[int]) -> None:
        """Differentiate every present task's loss with respect to the representation and its own head."""
        if self.features is None or self.buffer.features is not None:
            raise ValueError(
                f"Engine `feature` takes one micro-batch per step, whose forward runs `{self.path}` inside "
                "`with grads.rows(ids):`."
            )
        rows = {}
        for task in present:
            wanted = [self.features, *self.private[task]]
            found = losses.grad(task, wanted, retain_graph=True)
            if found[0] is not None:
                rows[task] = found[0]
            for parameter, gradient in zip(self.private[task], found[1:], strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self.buffer.take(self.features, rows)

    def verify(self, losses: ScaledLosses, present: Sequence[int], tasks: Sequence[str]) -> None:
        """Check nothing: rows may interact across tasks."""
