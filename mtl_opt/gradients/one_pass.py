"""Engine `one_pass`: one backward fills the rows of all tasks, at the price of plain training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from mtl_opt.gradients.buffer import RowBuffer
from mtl_opt.gradients.segments import Segments
from mtl_opt.gradients.wired import WiredForward

LEAK_TOLERANCE = 1e-5
"""Largest share of a task's gradient that may reach it through rows of other tasks: rounding, not mixing."""


class CannotWireError(ValueError):
    """Say which part of the model the engine cannot honour; engine "auto" then takes `per_task`."""


class OnePass:
    """Fill every task's row in one backward by wiring the layers that hold shared parameters.

    Args:
        model: The model.
        buffer: Where the rows go.
        private: Parameters of each task alone; autograd fills their `.grad` as usual.

    Raises:
        CannotWireError: If a shared parameter is in a layer that cannot be wired.
    """

    name = "one_pass"

    def __init__(self, model: nn.Module, buffer: RowBuffer, private: Sequence[Sequence[nn.Parameter]]) -> None:
        self.buffer = buffer
        self.private = private
        self.wired = _wire(model, buffer)

    @contextmanager
    def open(self, segments: Segments) -> Iterator[None]:
        """Wire the layers; outside this context the model is as it was.

        Args:
            segments: Rows of every task in the batch.

        Yields:
            Nothing.
        """
        for layer in self.wired:
            layer.segments = segments
            layer.module.__dict__["forward"] = layer
        try:
            yield
        finally:
            for layer in self.wired:
                layer.module.__dict__.pop("forward", None)

    def backward(
        self,
        scaled: Tensor,  # [tasks]
        present: Sequence[int],
    ) -> None:
        """Add the gradient of every present task's loss to its row, in one backward.

        Args:
            scaled: Losses times counts. `[tasks]`
            present: Tasks that have a loss.

        Raises:
            ValueError: If a gradient reached a shared parameter outside a wired layer.
        """
        scaled[list(present)].sum().backward()
        for name, parameter in self.buffer.parameters.items():
            if parameter.grad is not None:
                parameter.grad = None
                raise ValueError(
                    f"A gradient reached `{name}` outside its layer's forward, where engine `one_pass` cannot tell the "
                    "tasks apart (weights used as a function, tied weights); use engine `per_task`."
                )

    def verify(
        self,
        scaled: Tensor,  # [tasks]
        present: Sequence[int],
        tasks: Sequence[str],
    ) -> None:
        """Check that no task's loss depends on rows of another task: one backward per task, rows left empty.

        Args:
            scaled: Losses times counts. `[tasks]`
            present: Tasks that have a loss.
            tasks: Names of all tasks, for the message.

        Raises:
            ValueError: If a task's gradient comes in part through the rows of another task.
        """
        rows = self.buffer.rows
        for task in present:
            scaled[task].backward(retain_graph=True)
            norms = rows.norm(dim=1)
            norms, own = norms.clone(), float(norms[task])
            norms[task] = 0
            rows.zero_()
            worst = int(norms.argmax())
            if float(norms[worst]) > LEAK_TOLERANCE * max(own, float(norms[worst])):
                raise ValueError(
                    f"The loss of task `{tasks[task]}` depends on rows of task `{tasks[worst]}`: a layer or a loss "
                    "mixes rows, which engine `one_pass` cannot honour; use engine `per_task`."
                )
        for parameter in [*self.buffer.parameters.values(), *(p for group in self.private for p in group)]:
            parameter.grad = None


def _wire(model: nn.Module, buffer: RowBuffer) -> list[WiredForward]:
    """Find the layer of every shared parameter, or say why there is none."""
    names = {id(parameter): name for name, parameter in buffer.parameters.items()}
    holders: dict[int, str] = {}
    wired = []
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
        reason = _why_not(module)
        if reason:
            raise CannotWireError(
                f"Layer `{path}` ({type(module).__name__}) cannot be wired: {reason}; use engine `per_task`."
            )
        wired.append(WiredForward(path, module, {own: buffer.view(name) for own, name in local.items()}))
    missing = [name for key, name in names.items() if key not in holders]
    if missing:
        raise CannotWireError(f"Parameter `{missing[0]}` belongs to no layer of the model; use engine `per_task`.")
    return wired


def _why_not(module: nn.Module) -> str:
    """Say why a layer cannot be wired; empty where it can."""
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance"
    if isinstance(module, nn.Linear):
        return "" if type(module).forward is nn.Linear.forward else "it changes the forward of a linear layer"
    if isinstance(module, nn.LayerNorm | nn.Embedding) or type(module).__name__.endswith("RMSNorm"):
        frozen_rows = isinstance(module, nn.Embedding) and module.max_norm is not None
        return "it changes its weights in the forward (`max_norm`)" if frozen_rows else ""
    if any(True for _ in module.children()):
        return "it holds parameters beside other layers"
    return "only Linear, Embedding, LayerNorm and RMSNorm layers are known to treat rows apart"
