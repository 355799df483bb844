"""Layers whose backward adds the weight gradient of every task to its own row instead of summing over all rows.

The forward is the layer's own, and so is the gradient of its input: only the product that plain training would sum
over the whole batch, `gyᵀ x`, is taken per task. The arithmetic is the same, so the cost is too.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn import functional as F
from typing_extensions import override

from mtl_opt.gradients.segments import OpenSegments, Segments


class TaskLinear(torch.autograd.Function):
    """A linear layer; its weight gradient goes to the rows of the tasks."""

    @staticmethod
    @override
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows: dict[str, Tensor], segments: Segments
    ) -> Tensor:
        ctx.rows, ctx.segments = rows, segments
        weight = weight.to(x.dtype)  # as autocast would; a no-op outside it
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        x, weight = ctx.saved_tensors
        if "weight" in ctx.rows:
            _add_products(ctx.rows["weight"], gradient, x, ctx.segments)
        if "bias" in ctx.rows:
            for task, (part,) in ctx.segments.split(gradient):
                ctx.rows["bias"][task] += part.reshape(-1, part.shape[-1]).sum(0)
        return gradient @ weight if ctx.needs_input_grad[0] else None, None, None, None, None


def _add_products(
    rows: Tensor,  # [tasks, out, in]
    gradient: Tensor,  # [*shape, ..., out]
    x: Tensor,  # [*shape, ..., in]
    segments: Segments,
) -> None:
    """Add `gyᵀ x` of every task's rows to its row; in one batched product where all tasks have equally many rows."""
    if segments.equal:
        g = gradient.reshape(len(rows), -1, gradient.shape[-1])
        h = x.reshape(len(rows), -1, x.shape[-1])
        rows.add_(_product(g, h))  # not `baddbmm_`: into a view with gaps it was measured to be slower
        return
    for task, parts in segments.split(gradient, x):
        g, h = (part.reshape(-1, part.shape[-1]) for part in parts)
        rows[task].add_(_product(g, h))


def _product(
    g: Tensor,  # [..., n, out]
    h: Tensor,  # [..., n, in]
) -> Tensor:  # [..., out, in]
    """Compute `gᵀ h`; for a tall result as `(hᵀ g)ᵀ`, which was measured to be up to 3 times as fast on a CPU."""
    return (h.mT @ g).mT if g.shape[-1] > h.shape[-1] else g.mT @ h


class TaskLeaf(torch.autograd.Function):
    """Any layer that treats its rows apart; the backward is one local vector-Jacobian product per task."""

    @staticmethod
    @override
    def forward(
        ctx: Any, x: Tensor, module: nn.Module, rows: dict[str, Tensor], segments: Segments, *parameters: Tensor
    ) -> Tensor:
        ctx.module, ctx.rows, ctx.segments = module, rows, segments
        device = x.device.type  # the backward runs the layer again and must do it as the forward did
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(x)
        return _original(module, x)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        parameters = {name: getattr(ctx.module, name).detach().requires_grad_() for name in ctx.rows}
        wants_x = ctx.needs_input_grad[0]
        # Contiguous, whatever `x` is: its flat form below must be a view.
        x_gradient = torch.empty_like(x, memory_format=torch.contiguous_format) if wants_x else None
        flat = None if x_gradient is None else x_gradient.flatten(0, len(ctx.segments.shape) - 1)
        for task, (own, part_gradient) in ctx.segments.split(x, gradient):
            with torch.enable_grad(), torch.autocast(*ctx.autocast):
                part = own.detach().requires_grad_(wants_x)
                y = functional_call(_Original(ctx.module), _named(parameters), (part,))
                wanted = [*parameters.values(), *([part] if wants_x else [])]
                found = torch.autograd.grad(y, wanted, part_gradient)
            for name, value in zip(parameters, found, strict=False):
                ctx.rows[name][task] += value
            if flat is not None:
                flat[ctx.segments.rows[task]] = found[-1]
        return (x_gradient, None, None, None, *([None] * len(parameters)))


class _Original(nn.Module):
    """Call the forward of a module's class, whatever its instance has been wired to."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @override
    def forward(self, x: Tensor) -> Tensor:
        return _original(self.module, x)


def _original(module: nn.Module, x: Tensor) -> Tensor:
    """Run the forward that the class defines."""
    return type(module).forward(module, x)


def _named(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name parameters as `_Original` holds them."""
    return {f"module.{name}": value for name, value in parameters.items()}


class WiredForward:
    """Replace a layer's forward while rows are open.

    Args:
        path: Name of the layer in the model, for messages.
        module: The layer.
        rows: Views `[tasks, *shape]` of the layer's shared parameters, by local name.
        segments: Says which task owns each row while the layer runs.
    """

    def __init__(self, path: str, module: nn.Module, rows: dict[str, Tensor], segments: OpenSegments) -> None:
        self.path = path
        self.module = module
        self.rows = rows
        self.is_linear = isinstance(module, nn.Linear)
        self.segments = segments

    def __call__(self, x: Tensor) -> Tensor:  # [*shape, ..., features]
        """Run the layer, with a backward that fills the rows.

        Args:
            x: Input of the layer. `[*shape, ...]`

        Returns:
            Output of the layer. `[*shape, ...]`

        Raises:
            ValueError: If the leading dimensions of `x` are not those of the task ids.
        """
        if not torch.is_grad_enabled():
            return _original(self.module, x)
        segments = self.segments.current()
        if x.shape[: len(segments.shape)] != segments.shape:
            raise ValueError(
                f"Layer `{self.path}` got an input of shape {tuple(x.shape)}, which does not begin with the shape "
                f"{tuple(segments.shape)} of the task ids: engine `one_pass` cannot tell whose rows these are; "
                "use engine `per_task`."
            )
        if self.is_linear:
            if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:  # autocast leaves float64 alone
                x = x.to(torch.get_autocast_dtype(x.device.type))
            return TaskLinear.apply(x, self.module.weight, self.module.bias, self.rows, segments)
        parameters = [getattr(self.module, name) for name in self.rows]
        return TaskLeaf.apply(x, self.module, self.rows, segments, *parameters)
