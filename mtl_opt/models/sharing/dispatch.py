"""Tokens to experts and back, sorted by expert: two copies whose backwards are each other's forward."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from typing_extensions import override


class Plan:
    """Say where the tokens of every expert are once they are sorted by expert, in token order within each.

    Args:
        experts: The experts that every token goes to, none twice. `[tokens, top_k]`
        num_experts: Number of experts.

    Attributes:
        order: For every sorted place, which of all picks it is, counted token by token. `[tokens * top_k]`
        tokens: For every sorted place, the token. `[tokens * top_k]`
        places: For every token, where its picks are. `[tokens, top_k]`
        rows: The sorted places of every expert that has tokens.
    """

    def __init__(self, experts: Tensor, num_experts: int) -> None:
        flat = experts.flatten()
        self.order = flat.argsort(stable=True)
        self.tokens = self.order.div(experts.shape[1], rounding_mode="floor")
        places = torch.empty_like(self.order)
        places[self.order] = torch.arange(len(flat), device=flat.device)
        self.places = places.view(experts.shape)
        self.rows: dict[int, slice] = {}
        begin = 0
        for expert, count in enumerate(flat.bincount(minlength=num_experts).tolist()):
            if count:
                self.rows[expert] = slice(begin, begin + count)
            begin += count


def dispatch(x: Tensor, plan: Plan) -> Tensor:  # [tokens, features] -> [tokens * top_k, features]
    """Copy tokens to their experts.

    Args:
        x: Tokens. `[tokens, features]`
        plan: Where they go.

    Returns:
        Sorted by expert. `[tokens * top_k, features]`
    """
    return _Dispatch.apply(x, plan)


def collect(y: Tensor, plan: Plan) -> Tensor:  # [tokens * top_k, features] -> [tokens, features]
    """Add up what the experts of every token gave.

    Args:
        y: Sorted by expert. `[tokens * top_k, features]`
        plan: Where it was sent.

    Returns:
        By token. `[tokens, features]`
    """
    return _Collect.apply(y, plan)


def _copy(x: Tensor, plan: Plan) -> Tensor:
    """Copy tokens to sorted places."""
    return x.index_select(0, plan.tokens)


def _sum(y: Tensor, plan: Plan) -> Tensor:
    """Add sorted places up by token: a bag of places per token, measured to be faster than `index_add` on a CPU."""
    return F.embedding_bag(plan.places, y.contiguous(), mode="sum")


class _Dispatch(torch.autograd.Function):
    """Copy forward, add up backward."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        return _copy(x, plan)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient, ctx.plan), None


class _Collect(torch.autograd.Function):
    """Add up forward, copy backward."""

    @staticmethod
    @override
    def forward(ctx: Any, y: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        return _sum(y, plan)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _copy(gradient, ctx.plan), None
