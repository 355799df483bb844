"""Dispatch of tokens to experts and back, with one copy per token and expert."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override


class DispatchPlan:
    """Assignment of tokens to experts, in token order.

    Args:
        experts: The experts that every token goes to, none twice. `[tokens, top_k]`
        num_experts: Number of experts.

    Attributes:
        experts: The experts that have tokens.
        tokens: The tokens of each, by index. `[size]` each
        order: All picks, counted token by token, sorted by expert. `[tokens * top_k]`
    """

    def __init__(self, experts: Tensor, num_experts: int) -> None:
        flat = experts.flatten()
        self.order = flat.argsort(stable=True)
        counts = flat.bincount(minlength=num_experts).tolist()
        self.experts = [expert for expert, count in enumerate(counts) if count]
        self._sizes = [count for count in counts if count]
        self.tokens = self.order.div(experts.shape[1], rounding_mode="floor").split(self._sizes)

    def dispatch(self, x: Tensor) -> tuple[Tensor, ...]:  # [tokens, features] -> [size, features] each
        """Copy tokens to their experts."""
        return _Dispatch.apply(x, self.tokens)

    def by_expert(self, values: Tensor) -> tuple[Tensor, ...]:  # [tokens, top_k] -> [size] each
        """Group the values of all picks by expert."""
        return _Sort.apply(values.flatten(), self.order).split(self._sizes)


class _Dispatch(torch.autograd.Function):
    """Copy the tokens of every expert; the backward adds up into one tensor, not into one per expert."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, tokens: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ctx.tokens, ctx.shape = tokens, x.shape
        return tuple(x.index_select(0, own) for own in tokens)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].new_zeros(ctx.shape)
        for own, gradient in zip(ctx.tokens, gradients, strict=True):
            total.index_add_(0, own, gradient)  # a token is at most once in `own`: the same sum in every run
        return total, None


class _Sort(torch.autograd.Function):
    """Permute; unlike autograd's own, the backward need not add."""

    @staticmethod
    @override
    def forward(ctx: Any, values: Tensor, order: Tensor) -> Tensor:
        ctx.order = order
        return values.index_select(0, order)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.empty_like(gradient).scatter_(0, ctx.order, gradient), None
