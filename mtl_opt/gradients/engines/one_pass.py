"""Engine `one_pass`: one backward fills the rows of all tasks, at the price of plain training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mtl_opt.gradients.checks import refuse_constant
from mtl_opt.gradients.layers.open_segments import OpenSegments
from mtl_opt.gradients.layers.task_linear import WiredForward
from mtl_opt.gradients.layers.wirable import is_conv1d, why_not
from mtl_opt.gradients.rows.block_gramians import BlockGramians
from mtl_opt.gradients.rows.row_buffer import RowBuffer
from mtl_opt.gradients.step.loss_roots import ScaledLosses

LEAK_TOLERANCE = 1e-5
"""Largest share of a task's gradient that may reach it through rows of other tasks: rounding, not mixing."""


class CannotWireError(ValueError):
    """Raised with the part of the model that cannot be wired; engine "auto" then takes `per_task`."""


class OnePass:
    """Fill every task's row in one backward by wiring the layers that hold shared parameters.

    Args:
        model: The model.
        buffer: Where the rows go.
        private: Parameters of each task alone; autograd fills their `.grad` as usual.
        segments: Looks up the rows of each owner while rows are open.

    Raises:
        CannotWireError: If a shared parameter is in a layer that cannot be wired.
    """

    name = "one_pass"
    wires = True

    def __init__(
        self,
        model: nn.Module,
        buffer: RowBuffer | BlockGramians,
        private: Sequence[Sequence[nn.Parameter]],
        segments: OpenSegments,
    ) -> None:
        if buffer.columns.sharded:
            raise CannotWireError("FSDP2 has sharded the trained parameters: no layer sees whole ones; use `per_task`.")
        self.sharded = any(hasattr(p, "to_local") for p in model.parameters())
        self.buffer = buffer
        self.private = private
        self.wired = _wire(model, buffer, segments)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Wire the layers; outside this context the model is as it was. A `task_rows` context must be open."""
        for layer in self.wired:
            if "forward" in layer.module.__dict__:
                raise CannotWireError(
                    f"Layer `{layer.path}` cannot be wired: its forward was replaced on the instance (the rows of "
                    "another `TaskGradients` are open, or a library has put its own there)."
                )
        try:
            for layer in self.wired:
                layer.module.__dict__["forward"] = layer
            yield
        finally:
            for layer in self.wired:
                layer.module.__dict__.pop("forward", None)

    def agreed_counts(self, counts: Tensor) -> Tensor:  # [rows]
        """Return the counts that decide which losses are differentiated."""
        return self.buffer.processes.sum(counts.clone()) if self.sharded else counts

    def backward(self, losses: ScaledLosses, present: Sequence[int]) -> None:
        """Add the gradient of every present task's loss to its row, in one backward."""
        self.differentiate(losses, present, retain_graph=False)

    def differentiate(self, losses: ScaledLosses, present: Sequence[int], retain_graph: bool) -> None:
        """Run one backward of some losses together."""
        losses.backward(present, retain_graph)
        self._refuse_outside()

    def _refuse_outside(self) -> None:
        """Raise if a gradient has reached a parameter outside a wired layer, and drop it."""
        leaked = [name for name, parameter in self.buffer.parameters.items() if parameter.grad is not None]
        for name in leaked:
            self.buffer.parameters[name].grad = None
        if leaked:
            raise ValueError(
                f"A gradient reached `{leaked[0]}` outside its layer's forward, where engine `one_pass` cannot tell "
                "the tasks apart (weights used as a function, tied weights); use engine `per_task`."
            )

    def verify(self, losses: ScaledLosses, present: Sequence[int], tasks: Sequence[str]) -> None:
        """Check that no task's loss depends on rows or private parameters of another task.

        It costs one backward per task and leaves no trace. A `ValueError` names the two tasks.
        """
        touched = [*self.buffer.parameters.values(), *(p for group in self.private for p in group)]
        kept: Any = self.buffer.snapshot()  # of the micro-batches before this one
        gradients = [p.grad for p in touched]
        try:
            for task in present:
                self.buffer.zero()
                for parameter in touched:
                    parameter.grad = None
                losses.backward([task], retain_graph=True)
                self._refuse_outside()
                self._refuse_leak(task, tasks)
        finally:
            self.buffer.restore(kept)
            for parameter, gradient in zip(touched, gradients, strict=True):
                parameter.grad = gradient

    def _refuse_leak(self, task: int, tasks: Sequence[str]) -> None:
        """Raise if the gradient of one task's loss reached rows or private parameters of another."""
        norms = self.buffer.row_norms()
        own, norms[task] = float(norms[task]), 0
        refuse_constant(tasks[task], [norms.new_tensor(own), *(p.grad for p in self.private[task])])
        worst = int(norms.argmax())
        if float(norms[worst]) > LEAK_TOLERANCE * max(own, float(norms[worst])):
            raise ValueError(
                f"The loss of task `{tasks[task]}` depends on rows of task `{tasks[worst]}`: a layer or a loss mixes "
                "rows, which engine `one_pass` cannot honour; use engine `per_task`."
            )
        for other, group in enumerate(self.private):
            if tasks[other] != tasks[task] and any(p.grad is not None and bool(p.grad.any()) for p in group):
                raise ValueError(
                    f"The loss of task `{tasks[task]}` depends on private parameters of task `{tasks[other]}`, which "
                    "engine `one_pass` cannot honour; use engine `per_task`."
                )


def _wire(model: nn.Module, buffer: RowBuffer | BlockGramians, segments: OpenSegments) -> list[WiredForward]:
    """Wire the layer of every shared parameter, or raise with the reason why it cannot be wired."""
    names = {id(parameter): name for name, parameter in buffer.parameters.items()}
    holders: dict[int, str] = {}
    wired = []
    hooked = [name for name, parameter in buffer.parameters.items() if parameter._backward_hooks]
    if hooked:
        raise CannotWireError(f"`{hooked[0]}` has a hook on its gradient, which no task's row passes; use `per_task`.")
    for path, module in model.named_modules():
        local = {n: names[id(p)] for n, p in module.named_parameters(recurse=False) if id(p) in names}
        if not local:
            continue
        for own, name in local.items():
            parameter = id(getattr(module, own))
            if parameter in holders:
                raise CannotWireError(
                    f"Parameter `{name}` is tied: layers `{holders[parameter]}` and `{path}` share it; "
                    "use engine `per_task`."
                )
            holders[parameter] = path
        reason = why_not(module, local)
        if reason:
            raise CannotWireError(
                f"Layer `{path}` ({type(module).__name__}) cannot be wired: {reason}; use engine `per_task`."
            )
        transposed = frozenset({"weight"} if is_conv1d(module) else ())  # it keeps its weight as [in, out]
        wired.append(WiredForward(path, module, buffer.layer_rows(local, transposed), segments))
    missing = [name for key, name in names.items() if key not in holders]
    if missing:
        raise CannotWireError(f"Parameter `{missing[0]}` belongs to no layer of the model; use engine `per_task`.")
    return wired
