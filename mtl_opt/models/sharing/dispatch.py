"""Tokens to experts and back: two copies whose backwards are each other's forward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override


class Plan:
    """Say which tokens every expert gets, in token order.

    Args:
        experts: The experts that every token goes to, none twice. `[tokens, top_k]`
        num_experts: Number of experts.

    Attributes:
        num_tokens: Number of tokens.
        experts: The experts that have tokens.
        order: All picks, counted token by token, sorted by expert. `[tokens * top_k]`
        places: Where every pick is in that order. `[tokens * top_k]`
        sizes: Number of tokens of each expert that has any.
        tokens: The tokens of each, by index. `[size]` each
    """

    def __init__(self, experts: Tensor, num_experts: int) -> None:
        self.num_tokens = len(experts)
        flat = experts.flatten()
        self.order = flat.argsort(stable=True)
        self.places = torch.empty_like(self.order)
        self.places[self.order] = torch.arange(len(flat), device=flat.device)
        counts = flat.bincount(minlength=num_experts).tolist()
        self.experts = [expert for expert, count in enumerate(counts) if count]
        self.sizes = [count for count in counts if count]
        self.tokens = self.order.div(experts.shape[1], rounding_mode="floor").split(self.sizes)


def dispatch(x: Tensor, plan: Plan) -> tuple[Tensor, ...]:  # [tokens, features] -> [size, features] each
    """Copy tokens to their experts.

    Args:
        x: Tokens. `[tokens, features]`
        plan: Who gets which.

    Returns:
        The tokens of each expert that has any. `[size, features]` each
    """
    return _Dispatch.apply(x, plan)


def collect(parts: Sequence[Tensor], plan: Plan) -> Tensor:  # [size, features] each -> [tokens, features]
    """Add up what the experts of every token gave.

    Args:
        parts: What each expert gave. `[size, features]` each
        plan: Who got which.

    Returns:
        By token. `[tokens, features]`
    """
    return _Collect.apply(plan, *parts)


def by_expert(values: Tensor, plan: Plan) -> tuple[Tensor, ...]:  # [tokens, top_k] -> [size] each
    """Hand every pick's value to its expert.

    Args:
        values: One per pick. `[tokens, top_k]`
        plan: Who gets which.

    Returns:
        By expert. `[size]` each
    """
    return _Permute.apply(values.flatten(), plan).split(plan.sizes)


def _copies(x: Tensor, plan: Plan) -> tuple[Tensor, ...]:
    """Copy the tokens of every expert."""
    return tuple(x.index_select(0, tokens) for tokens in plan.tokens)


def _sum(parts: Sequence[Tensor], plan: Plan) -> Tensor:
    """Add up by token; an expert has a token once, so that the order of the sum is always the same."""
    total = parts[0].new_zeros(plan.num_tokens, parts[0].shape[-1])
    for tokens, part in zip(plan.tokens, parts, strict=True):
        total.index_add_(0, tokens, part)
    return total


class _Dispatch(torch.autograd.Function):
    """Copy forward, add up backward."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, plan: Plan) -> tuple[Tensor, ...]:
        ctx.plan = plan
        return _copies(x, plan)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _sum(gradients, ctx.plan), None


class _Collect(torch.autograd.Function):
    """Add up forward, copy backward."""

    @staticmethod
    @override
    def forward(ctx: Any, plan: Plan, *parts: Tensor) -> Tensor:
        ctx.plan = plan
        return _sum(parts, plan)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *_copies(gradient, ctx.plan))


class _Permute(torch.autograd.Function):
    """Sort by expert forward, by token backward."""

    @staticmethod
    @override
    def forward(ctx: Any, values: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        return values.index_select(0, plan.order)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.index_select(0, ctx.plan.places), None
