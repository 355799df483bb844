"""Engine `per_task`: one backward per task. Works for any model; the reference for every other engine."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from mtl_opt.gradients.buffer import RowBuffer


class PerTask:
    """Differentiate every task's loss on its own with `torch.autograd.grad`.

    Args:
        buffer: Where the rows go.
        private: Parameters of each task alone.
    """

    name = "per_task"

    def __init__(self, buffer: RowBuffer, private: Sequence[Sequence[nn.Parameter]]) -> None:
        self.buffer = buffer
        self.private = private
        self.views = [buffer.view(name) for name in buffer.parameters]

    def open(self) -> AbstractContextManager[None]:
        """Prepare the model for a forward.

        Returns:
            A context that does nothing: any forward will do.
        """
        return nullcontext()

    def backward(
        self,
        scaled: Tensor,  # [tasks]
        present: Sequence[int],
    ) -> None:
        """Add the gradient of every present task's loss to its row.

        Args:
            scaled: Losses times counts. `[tasks]`
            present: Tasks that have a loss.
        """
        shared = list(self.buffer.parameters.values())
        for task in present:
            wanted = [*shared, *self.private[task]]
            gradients = torch.autograd.grad(
                scaled[task], wanted, retain_graph=task != present[-1], allow_unused=True
            )  # the graph is freed with the last task
            for view, gradient in zip(self.views, gradients, strict=False):
                if gradient is not None:
                    view[task].add_(gradient)
            for parameter, gradient in zip(self.private[task], gradients[len(shared) :], strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
