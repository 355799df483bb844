"""Any layer that processes rows independently: one local vector-Jacobian product per task."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from mtl_opt.batch import Segments
from mtl_opt.gradients.rows.layer_rows import LayerRows

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a layer beside its one tensor."""


class TaskLeaf(torch.autograd.Function):
    """Any layer that processes rows independently; its backward runs the layer again for every task."""

    @staticmethod
    @override
    def forward(
        ctx: Any,
        x: Tensor,
        module: nn.Module,
        call: Call,
        rows: LayerRows,
        segments: Segments,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.module, ctx.call, ctx.rows, ctx.segments = module, call, rows, segments
        device = x.device.type  # the backward runs the layer again and must do it as the forward did
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(x)
        return class_forward(module, x, *call[0], **call[1])

    @staticmethod
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order()
        (x,) = ctx.saved_tensors
        parameters = {name: getattr(ctx.module, name).detach().requires_grad_() for name in ctx.rows.names}
        wants_x = ctx.needs_input_grad[0]
        # Contiguous, whatever `x` is: its flat form below must be a view.
        x_gradient = torch.empty_like(x, memory_format=torch.contiguous_format) if wants_x else None
        flat = None if x_gradient is None else x_gradient.flatten(0, len(ctx.segments.shape) - 1)
        inputs, options = ctx.call
        with ExitStack() as stack:
            rows = {name: stack.enter_context(ctx.rows.open(name)) for name in parameters}
            for task, (own, part_gradient) in ctx.segments.split(x, gradient):
                with torch.enable_grad(), torch.autocast(*ctx.autocast):
                    part = own.detach().requires_grad_(wants_x)
                    y = functional_call(_Original(ctx.module), _named(parameters), (part, *inputs), options)
                    wanted = [*parameters.values(), *([part] if wants_x else [])]
                    found = torch.autograd.grad(y, wanted, part_gradient, allow_unused=True)
                for name, value in zip(parameters, found, strict=False):
                    if value is not None:
                        add_to_row(rows[name][task], value)
                if flat is not None:
                    flat[ctx.segments.rows[task]] = 0 if found[-1] is None else found[-1]
        return (x_gradient, None, None, None, None, *([None] * len(parameters)))


def refuse_second_order() -> None:
    """Raise where the gradient that a backward computes is to be differentiated again."""
    if torch.is_grad_enabled():
        raise ValueError(
            "Engine `one_pass` cannot differentiate derivatives of the model's output (`create_graph=True`, as for the "
            "residuals of a differential equation or gradient penalties); use engine `per_task`."
        )


def add_to_row(rows: Tensor, gradient: Tensor) -> None:  # [*shape], [*shape]
    """Add a gradient to a row, which may have another device and precision."""
    rows.add_(gradient.to(rows.device))


class _Original(nn.Module):
    """Call the forward that a module's class defines, as a module for `functional_call`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @override
    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        return class_forward(self.module, *inputs, **options)


def class_forward(module: nn.Module, *inputs: Any, **options: Any) -> Any:
    """Run the forward that the class defines, whatever the instance has been wired to."""
    return type(module).forward(module, *inputs, **options)


def _named(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name parameters as `_Original` holds them."""
    return {f"module.{name}": value for name, value in parameters.items()}


def check_rows_apart(
    path: str,
    module: nn.Module,
    x: Tensor,  # [batch, ...]
    inputs: tuple[Any, ...],
    options: dict[str, Any],
    segments: Segments,
) -> None:
    """Raise unless the output of an unknown layer for a row is the same whatever other rows are in the batch.

    It is run once on the whole batch and once on each task's rows, and its state is put back. This finds layers that
    mix rows, draw random numbers or keep running statistics: a second run would not be the first one.
    """
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    devices = [x.device] if x.device.type == "cuda" else []
    reason = ""
    with torch.no_grad(), torch.random.fork_rng(devices):
        y = class_forward(module, x, *inputs, **options)
        if not isinstance(y, Tensor) or y.shape[: len(segments.shape)] != segments.shape:
            reason = "does not return one tensor with the rows of its input"
        else:
            limit = (1e-3 if y.dtype in {torch.float32, torch.float64} else 0.05) * float(y.abs().max())
            for _, (own, wanted) in segments.split(x, y):
                alone = class_forward(module, own, *inputs, **options)
                if alone.shape != wanted.shape or float((alone - wanted).abs().max()) > limit:
                    reason = "mixes rows or draws random numbers (its output for some rows depends on the others)"
        if any(not torch.equal(buffer, kept[name]) for name, buffer in module.named_buffers()):
            reason = reason or "changes its own state in every forward"
        for name, buffer in module.named_buffers():
            buffer.copy_(kept[name])
    if reason:
        raise ValueError(f"Layer `{path}` ({type(module).__name__}) {reason}; use engine `per_task`.")
