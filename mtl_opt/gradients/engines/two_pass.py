"""Engine `two_pass`: Gramians in a first backward, the combined gradient in a second; no rows in memory."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial

from torch import Tensor, nn

from mtl_opt.batch import Segments, current_task_rows, task_rows
from mtl_opt.gradients.engines.one_pass import OnePass
from mtl_opt.gradients.layers.open_segments import OpenSegments
from mtl_opt.gradients.rows.block_gramians import BlockGramians
from mtl_opt.gradients.step.loss_roots import ScaledLosses


class TwoPass:
    """Differentiate the same graph twice: dropout masks are those of the one forward, activations are kept until then.

    For full fine-tuning and very large adapters, where a row per task would not fit. One micro-batch per step: the
    Gramian of several needs the products across them.

    Args:
        model: The model.
        buffer: Takes the pieces of both backwards.
        private: Parameters of each row alone; their gradients come from the first backward.
        segments: Looks up which rows of the batch go to each row of the buffer.
    """

    name = "two_pass"
    wires = True

    def __init__(
        self,
        model: nn.Module,
        buffer: BlockGramians,
        private: Sequence[Sequence[nn.Parameter]],
        segments: OpenSegments,
    ) -> None:
        self.wiring = OnePass(model, buffer, private, segments)
        self.buffer = buffer
        self.private = [parameter for group in private for parameter in group]
        self.segments = segments

    def open(self) -> AbstractContextManager[None]:
        """Wire the layers that hold shared parameters."""
        return self.wiring.open()

    def agreed_counts(self, counts: Tensor) -> Tensor:  # [rows]
        """Return the counts that decide which losses are differentiated."""
        return self.wiring.agreed_counts(counts)

    def backward(self, losses: ScaledLosses, present: Sequence[int]) -> None:
        """Add the inner products of all gradients, in one backward that keeps the graph."""
        if self.buffer.second_pass is not None:
            raise ValueError(
                "Engine `two_pass` takes one micro-batch per step (the Gramian of several needs the products across "
                "them); accumulate with engine `one_pass`, or take larger batches."
            )
        ids = current_task_rows()
        assert ids is not None
        self.buffer.second_pass = partial(self._again, losses, present, ids, self.segments.current())
        self.wiring.differentiate(losses, present, retain_graph=True)

    def verify(self, losses: ScaledLosses, present: Sequence[int], tasks: Sequence[str]) -> None:
        """Check that no task's loss depends on rows or private parameters of another task."""
        self.wiring.verify(losses, present, tasks)

    def _again(self, losses: ScaledLosses, present: Sequence[int], ids: Tensor, segments: Segments) -> None:
        """Run the backward again; private gradients are there already."""
        gradients = [parameter.grad for parameter in self.private]
        for parameter in self.private:
            parameter.grad = None  # autograd would add to the very tensor
        with task_rows(ids), self.wiring.open():  # layers that are recomputed ask again whose rows these are
            self.segments.register(ids, segments)
            self.wiring.differentiate(losses, present, retain_graph=False)
        self.segments.forget()
        for parameter, gradient in zip(self.private, gradients, strict=True):
            parameter.grad = gradient
