"""Layers whose backward adds the weight gradient of each task to the row of that task.

The forward is the layer's own, and so is the gradient of its input: only the product that plain training would sum
over the whole batch, `gyᵀ x`, is taken per task. The arithmetic is the same, so the cost is too.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mtl_opt.batch import Segments, note_row_length, unflatten_rows
from mtl_opt.gradients.layers.open_segments import OpenSegments
from mtl_opt.gradients.layers.task_leaf import (
    TaskLeaf,
    add_to_row,
    check_rows_apart,
    class_forward,
    refuse_second_order,
)
from mtl_opt.gradients.layers.wirable import is_conv1d, is_known, mixes_tokens
from mtl_opt.gradients.rows.layer_rows import LayerRows


class TaskLinear(torch.autograd.Function):
    """A linear layer; its weight gradient goes to the rows of the tasks."""

    @staticmethod
    @override
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows: LayerRows, segments: Segments
    ) -> Tensor:
        ctx.rows, ctx.segments = rows, segments
        weight = weight.to(x.dtype)  # as autocast would; a no-op outside it
        ctx.save_for_backward(x, weight)
        # `.data`: a result of more than two dimensions is a view, which no operation in place may follow otherwise.
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype)).data

    @staticmethod
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        refuse_second_order()
        x, weight = ctx.saved_tensors
        if "weight" in ctx.rows.names:
            combining = ctx.rows.combining("weight")
            if combining is None:
                _fill_rows(ctx.rows, gradient, x, ctx.segments)
            else:
                weights, target = combining
                _add_combined(weights, target, gradient, x, ctx.segments)
        if "bias" in ctx.rows.names:
            with ctx.rows.open("bias") as rows:
                for task, (piece,) in ctx.segments.pieces(gradient):
                    add_to_row(rows[task], piece.reshape(-1, piece.shape[-1]).sum(0))
        return gradient @ weight if ctx.needs_input_grad[0] else None, None, None, None, None


def _fill_rows(
    rows: LayerRows,
    gradient: Tensor,  # [*shape, ..., out]
    x: Tensor,  # [*shape, ..., in]
    segments: Segments,
) -> None:
    """Add `gyᵀ x` of every task's rows to its row; in one batched product where all tasks have equally many rows."""
    for part in rows.parts("weight"):
        own = gradient[..., part]
        if segments.equal:
            g, h = (both.reshape(len(segments.rows), -1, both.shape[-1]) for both in (own, x))
            rows.add("weight", part, _product(g, h))  # not `baddbmm_`: into a view with gaps it was seen to be slower
            continue
        with rows.open("weight", part) as opened:
            for task, pieces in segments.pieces(own, x):
                g, h = (piece.reshape(-1, piece.shape[-1]) for piece in pieces)
                add_to_row(opened[task], _product(g, h))


def _add_combined(
    weights: Tensor,  # [tasks]
    target: Tensor,  # [out, in]
    gradient: Tensor,  # [*shape, ..., out]
    x: Tensor,  # [*shape, ..., in]
    segments: Segments,
) -> None:
    """Add the weighted sum of all rows: with the weights known it is one product, as in plain training."""
    exact = x.dtype == target.dtype and x.device == target.device
    # Weights hold 1 / counts and 1 / loss scale, which float16 does not: there only their proportions are used.
    whole = 1 if exact else weights.abs().sum().clamp(min=torch.finfo(weights.dtype).tiny)
    share = segments.spread((weights / whole).to(x))
    share = share.view(*share.shape, *[1] * (x.dim() - share.dim()))
    if x.shape[-1] < gradient.shape[-1]:
        x = x * share
    else:
        gradient = gradient * share
    g, h = (both.reshape(-1, both.shape[-1]) for both in (gradient, x))
    if exact:
        target.addmm_(g.T, h)
    else:
        target.add_((g.T @ h).to(target) * whole)


def _product(
    g: Tensor,  # [..., n, out]
    h: Tensor,  # [..., n, in]
) -> Tensor:  # [..., out, in]
    """Compute `gᵀ h`; for a tall result as `(hᵀ g)ᵀ`, which was measured to be up to 3 times as fast on a CPU."""
    return (h.mT @ g).mT if g.shape[-1] > h.shape[-1] else g.mT @ h


class TaskEmbedding(torch.autograd.Function):
    """A table; the gradient of every token is added to its line in the row of its task, without a dense temporary."""

    @staticmethod
    @override
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, padding: int | None, rows: LayerRows, segments: Segments
    ) -> Tensor:
        ctx.rows, ctx.segments, ctx.padding = rows, segments, padding
        ctx.save_for_backward(x)
        return F.embedding(x, weight)

    @staticmethod
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None, None, None]:
        refuse_second_order()
        (x,) = ctx.saved_tensors
        if ctx.padding is not None:  # its line gets no gradient, as in the layer itself
            gradient = gradient.masked_fill((x == ctx.padding)[..., None], 0)
        with ctx.rows.open_lines("weight", x) as (where, rows):
            for task, (tokens, piece) in ctx.segments.pieces(where, gradient):
                values = piece.reshape(-1, piece.shape[-1]).to(rows)
                rows[task].index_add_(0, tokens.flatten().to(rows.device), values)
        return None, None, None, None, None


class WiredForward:
    """The forward of a layer while rows are open; its backward fills the rows.

    Args:
        path: Name of the layer in the model, for messages.
        module: The layer.
        rows: Where the gradients of the layer's shared parameters go.
        segments: Looks up the rows of each owner while the layer runs.
    """

    def __init__(self, path: str, module: nn.Module, rows: LayerRows, segments: OpenSegments) -> None:
        self.path = path
        self.module = module
        self.rows = rows
        self.is_linear = isinstance(module, nn.Linear)
        self.is_conv1d = is_conv1d(module)
        self.is_embedding = isinstance(module, nn.Embedding) and type(module).forward is nn.Embedding.forward
        self.input_name = next(iter(inspect.signature(module.forward).parameters), "")
        self.trusted = is_known(module)
        self.segments = segments

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:  # [*shape, ...]
        """Run the layer, with a backward that fills the rows."""
        if not torch.is_grad_enabled():
            return class_forward(self.module, *inputs, **options)
        x, inputs, options = self._taken_apart(inputs, options)
        rows = None if self.is_embedding or mixes_tokens(self.module) else unflatten_rows(x)
        if rows is None:
            return self._run(x, inputs, options)
        return self._run(rows, inputs, options).flatten(0, 1)

    def _run(self, x: Tensor, inputs: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        """Run the layer on an input that begins with the rows."""
        segments = self.segments.current()
        x = self._checked(x, segments)
        if self.is_linear or self.is_conv1d:
            if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:  # autocast leaves float64 alone
                x = x.to(torch.get_autocast_dtype(x.device.type))
            weight = self.module.weight.T if self.is_conv1d else self.module.weight
            return TaskLinear.apply(x, weight, self.module.bias, self.rows, segments)
        if self.is_embedding:
            return TaskEmbedding.apply(x, self.module.weight, self.module.padding_idx, self.rows, segments)
        if not self.trusted:
            check_rows_apart(self.path, self.module, x, inputs, options, segments)
            self.trusted = self.module.training  # what is random in training only is not seen in evaluation
        parameters = [getattr(self.module, name) for name in self.rows.names]
        return TaskLeaf.apply(x, self.module, (inputs, options), self.rows, segments, *parameters)

    def _taken_apart(
        self, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
        """Separate the one input from the other arguments of the call."""
        if inputs:
            x, inputs = inputs[0], inputs[1:]
        else:
            x, options = options.get(self.input_name), {k: v for k, v in options.items() if k != self.input_name}
        if not isinstance(x, Tensor) or any(isinstance(value, Tensor) for value in (*inputs, *options.values())):
            raise ValueError(
                f"Layer `{self.path}` ({type(self.module).__name__}) was called with more than one tensor, or with "
                "none as its first input: engine `one_pass` cannot tell whose rows these are; use engine `per_task`."
            )
        return x, inputs, options

    def _checked(self, x: Tensor, segments: Segments) -> Tensor:  # [*shape, ..., features] -> [*shape, ..., features]
        """Raise for an input whose first dimension is not the rows; expand positions that all rows share."""
        shape = segments.shape
        if isinstance(self.module, nn.Embedding) and x.dim() >= 2 and x.shape[0] == 1 and len(shape) == 1:
            x = x.expand(shape[0], *x.shape[1:])  # [1, seq], as BERT and GPT-2 number their positions
        if x.shape[: len(shape)] != shape:
            raise ValueError(
                f"Layer `{self.path}` ({type(self.module).__name__}) got an input of shape {tuple(x.shape)}, which "
                f"does not begin with the shape {tuple(shape)} of the task ids: engine `one_pass` cannot tell whose "
                "rows these are; use engine `per_task`."
            )
        if len(shape) > 1 and mixes_tokens(self.module):
            raise ValueError(
                f"Layer `{self.path}` ({type(self.module).__name__}) may mix the tokens of a sequence, but with "
                "packed rows a sequence holds several tasks; use engine `per_task` or do not pack."
            )
        if x.dim() == (2 if self.is_embedding else 3) and (self.is_linear or self.is_conv1d or self.is_embedding):
            note_row_length(x)
        return x
