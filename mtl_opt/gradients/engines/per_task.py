"""Engine `per_task`: one backward per task. Works for any model; the reference for every other engine."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from mtl_opt.gradients.checks import refuse_constant
from mtl_opt.gradients.graph import reach_of, refuse_reentrant
from mtl_opt.gradients.rows.row_buffer import RowBuffer
from mtl_opt.gradients.rows.shards import local_shard
from mtl_opt.gradients.step.loss_roots import ScaledLosses


class PerTask:
    """Differentiate every task's loss on its own with `torch.autograd.grad`.

    Args:
        model: The model.
        buffer: Where the rows go.
        private: Parameters that belong to each row of the buffer alone.

    Attributes:
        retain_graph: Keep the graph after the last loss too.
        walked: Whether the graph was searched for what cannot be differentiated loss by loss.
    """

    name = "per_task"
    wires = False

    def __init__(self, model: nn.Module, buffer: RowBuffer, private: Sequence[Sequence[nn.Parameter]]) -> None:
        self.sharded = any(hasattr(p, "to_local") for p in model.parameters())
        self.buffer = buffer
        self.private = private
        self.retain_graph = False
        self.walked = False
        self.views = [buffer.view(name) for name in buffer.parameters]

    def open(self) -> AbstractContextManager[None]:
        """Leave the model as it is."""
        return nullcontext()

    def agreed_counts(self, counts: Tensor) -> Tensor:  # [rows]
        """Return the counts that decide which losses are differentiated."""
        return self.buffer.processes.sum(counts.clone()) if self.sharded else counts

    def backward(self, losses: ScaledLosses, present: Sequence[int]) -> None:
        """Add the gradient of every present loss to its row."""
        take = self._from_backward if self.sharded else self._from_grad
        if not self.walked:
            refuse_reentrant(reach_of([losses.outputs[row] for row in present]))
            self.walked = True
        for row in present:
            wanted = [*self.buffer.parameters.values(), *self.private[row]]
            gradients = take(losses, row, wanted, row == present[-1] and not self.retain_graph)
            for name, view, gradient in zip(self.buffer.parameters, self.views, gradients, strict=False):
                if gradient is not None:
                    self.buffer.reached.add(name)
                    view[row].add_(local_shard(gradient))
            for parameter, gradient in zip(self.private[row], gradients[len(self.views) :], strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def verify(self, losses: ScaledLosses, present: Sequence[int], tasks: Sequence[str]) -> None:
        """Check that every present loss has a gradient; rows may interact across tasks."""
        take = self._from_backward if self.sharded else self._from_grad
        for row in present:
            wanted = [*self.buffer.parameters.values(), *self.private[row]]
            refuse_constant(tasks[row], take(losses, row, wanted, last=False))

    @staticmethod
    def _from_grad(
        losses: ScaledLosses, row: int, wanted: Sequence[nn.Parameter], last: bool
    ) -> Sequence[Tensor | None]:
        """Differentiate without touching any `.grad`; the graph is freed with the last loss."""
        return losses.grad(row, wanted, retain_graph=not last)

    @staticmethod
    def _from_backward(
        losses: ScaledLosses, row: int, wanted: Sequence[nn.Parameter], last: bool
    ) -> Sequence[Tensor | None]:
        """Differentiate in a backward of its own, in which FSDP2 reduces and scatters, and undo the mean it takes."""
        kept = [parameter.grad for parameter in wanted]
        for parameter in wanted:
            parameter.grad = None
        losses.backward([row], retain_graph=not last)
        found = [None if p.grad is None else p.grad * _processes_of(p) for p in wanted]
        for parameter, gradient in zip(wanted, kept, strict=True):
            parameter.grad = gradient
        return found


def _processes_of(parameter: nn.Parameter) -> int:
    """Count the processes over which FSDP2 has averaged a gradient."""
    return parameter.device_mesh.size() if hasattr(parameter, "device_mesh") else 1
