"""Sparse experts: every token goes to the few LoRA experts that a shared router picks."""

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.batch import task_rows
from mtl_opt.checks import at_least, named, positive
from mtl_opt.models.lora import LoraSettings
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.parts.dispatch import DispatchPlan
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import fresh_a, fresh_b, low_rank_pair
from mtl_opt.models.sharing.parts.router_terms import RouterTerms

DISPATCHES = ("auto", "masked", "grouped")

BREAK_EVEN = 192
"""Ranks of a token's inactive experts above which `auto` copies tokens instead of computing what is then masked: of 4
experts with top-2, masked was faster at rank 64 and grouped at rank 128 (hidden 256 and 512, one thread of a CPU)."""


class SparseExperts(AdapterSharing):
    """Top-k of several LoRA experts per token: `y = W x + s Σ_{e in top-k} p_e B_e A_e x`, everything shared.

    `p` is the softmax of the router `R x` over the k experts with the largest logits (with k = 1 over all, as in the
    Switch Transformer: over one it would be 1 and the router would learn nothing). No capacity, no token is dropped.

    `dispatch: grouped` computes the active experts only: tokens are sorted by expert and every expert gets one product
    of all its tokens; experts without tokens cost nothing. `dispatch: masked` computes the hidden features of all
    experts in one product and sets those of the others to zero: the same numbers, at a price that grows with the
    number of experts but without copies of tokens, and without waiting for a GPU. LoRA experts are small: with 4
    experts of rank 8 a grouped training step took 1.4 to 1.7 times that of plain LoRA with the active rank, a masked
    one 1.07 to 1.16 (hidden 512 and 256, one thread of a CPU). `auto` takes `grouped` where the inactive experts have
    more than `BREAK_EVEN` ranks together.

    Two terms per target layer are added to every task's loss: `balance_loss` times `E Σ_e f_e P_e` (`f_e`: the share of
    the task's picks that go to expert `e`; `P_e`: its mean probability; 1 where all experts are used alike), and
    `z_loss` times the mean of `logsumexp(R x)²`. Both are means over the task's own tokens, averaged over the layers,
    so that a task's gradient depends on its own rows alone. Padding counts for nothing where the model is called with
    an `attention_mask` `[batch, seq]`; packed rows have none, and the fill at their end is counted.

    Cost: that of LoRA with rank `top_k · rank` (masked: `num_experts · rank`), a product `[in, num_experts]`; grouped:
    copies of the tokens' inputs and outputs, `top_k` of each. Which task owns a token is then found again for every
    expert (engine `one_pass`), and halves of rows (SDMGrad, MoDo) cannot be followed.

    Departures: MixLoRA has experts in the feed-forward layers only, with one router for all of their matrices; here
    every target layer has its own (`lora_target` chooses them). The balance is per task, not over the batch.

    Args:
        num_experts: Number of experts.
        top_k: Experts of a token.
        balance_loss: Strength of the balance loss; 0: none.
        z_loss: Strength of the z-loss; 0: none.
        dispatch: "auto", "masked" or "grouped".

    Raises:
        ValueError: If an argument is not allowed.

    References:
        Shazeer, Mirhoseini, Maziarz et al., `Outrageously Large Neural Networks <https://arxiv.org/abs/1701.06538>`_,
        ICLR 2017; Fedus, Zoph, Shazeer, `Switch Transformers <https://arxiv.org/abs/2101.03961>`_, JMLR 23, 2022,
        equations 4 to 6; Zoph, Bello, Kumar et al., `ST-MoE <https://arxiv.org/abs/2202.08906>`_, 2022, equation 5;
        Li, Ma, Wang et al., `MixLoRA <https://arxiv.org/abs/2404.15159>`_, 2024.
    """

    summary: ClassVar[str] = "LoRA experts for all tasks; each token takes the few that a shared router picks"
    paper = "Li et al., MixLoRA, 2024, https://arxiv.org/abs/2404.15159; Fedus et al., Switch Transformers, JMLR 2022"

    def __init__(
        self,
        num_experts: int = 4,
        top_k: int = 2,
        balance_loss: float = 0.01,
        z_loss: float = 0.001,
        dispatch: str = "auto",
    ) -> None:
        self.num_experts = at_least("num_experts", num_experts, 2)
        self.top_k = at_least("top_k", top_k, 1)
        if self.top_k > self.num_experts:
            raise ValueError(f"`top_k` must be at most `num_experts`, {self.num_experts}, got {self.top_k}.")
        self.balance_loss = positive("balance_loss", balance_loss, zero=True)
        self.z_loss = positive("z_loss", z_loss, zero=True)
        self.dispatch = named("dispatch", dispatch, DISPATCHES)

    @override
    def apply(self, context: SharingContext) -> None:
        self._terms = RouterTerms(len(context.tasks), self.balance_loss, self.z_loss)
        self._terms.padding.watch(context.model)
        super().apply(context)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        grouped = self.dispatch == "grouped"
        if self.dispatch == "auto":
            grouped = (self.num_experts - self.top_k) * context.lora.rank > BREAK_EVEN
        kind = SparseLora if grouped else MaskedLora
        return kind(layer, context.lora, self.num_experts, self.top_k, self._terms)

    @override
    def report(self) -> dict[str, float]:
        return {} if self._terms.largest_load is None else {"largest_expert_load": float(self._terms.largest_load)}


class TokenRoutedLora(nn.Module):
    """The router of one layer, shared by both ways of dispatch.

    Args:
        layer: The layer it adds to.
        lora: Rank, scale and dropout.
        num_experts: Number of experts.
        top_k: Experts of a token.
        terms: Turns what the router says into balance loss and z-loss.
    """

    def __init__(
        self,
        layer: LinearLayer,
        lora: LoraSettings,
        num_experts: int,
        top_k: int,
        terms: RouterTerms,
    ) -> None:
        super().__init__()
        self.top_k, self.terms = top_k, terms
        self.router = nn.Linear(layer.in_features, num_experts, bias=False)
        self.router.weight = fresh_a(num_experts, layer)
        self.scaling = lora.scaling
        self.dropout = nn.Dropout(lora.dropout)
        self.add_experts(layer, lora.rank, num_experts)

    def add_experts(self, layer: LinearLayer, rank: int, num_experts: int) -> None:
        """Create the matrices of the experts.

        Args:
            layer: The layer they add to.
            rank: Rank of each.
            num_experts: Number of experts.
        """
        raise NotImplementedError

    def pick(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Route every token to its top-k experts.

        Args:
            x: Tokens. `[..., in]`

        Returns:
            Logits `[tokens, experts]`, and the experts of every token and their gates with the scale in them
            `[tokens, top_k]`.
        """
        logits = self.router(x).flatten(0, -2).float()
        best, experts = logits.topk(self.top_k)
        gates = (best - logits.logsumexp(-1, keepdim=True)).exp() if self.top_k == 1 else best.softmax(-1)
        if self.training:
            self.terms.keep(self, logits, experts, x.shape[:-1])
        return logits, experts, gates * self.scaling

    def take_row_terms(self) -> Tensor | None:  # -> [tasks]
        """Return the terms of the last training forward; the first layer asked returns those of all layers.

        Returns:
            Balance loss and z-loss of every task, means over its tokens and the layers; None where there are none.
            `[tasks]`
        """
        return self.terms.take()

    def lora_of(self, task: int) -> None:
        """Return None: the router depends on the token, so there is no fixed product for a task.

        Args:
            task: Any task.
        """


class MaskedLora(TokenRoutedLora):
    """Compute all experts in one product, with zero gates for those that a token did not pick."""

    @override
    def add_experts(self, layer: LinearLayer, rank: int, num_experts: int) -> None:
        self.rank, width = rank, num_experts * rank
        self.lora_A, self.lora_B = low_rank_pair(layer, [width], width)  # all experts stacked by rank

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.lora_B.weight.dtype)
        logits, experts, gates = self.pick(x)
        of_all = torch.zeros_like(logits).scatter(1, experts, gates).view(*x.shape[:-1], -1, 1)
        h = self.lora_A(self.dropout(x)).unflatten(-1, (-1, self.rank))  # [..., experts, rank]
        return self.lora_B((h * of_all.to(h.dtype)).flatten(-2))


class SparseLora(TokenRoutedLora):
    """Gather the tokens of every expert and compute the active experts only."""

    @override
    def add_experts(self, layer: LinearLayer, rank: int, num_experts: int) -> None:
        self.lora_A = nn.ModuleList(nn.Linear(layer.in_features, rank, bias=False) for _ in range(num_experts))
        self.lora_B = nn.ModuleList(nn.Linear(rank, layer.out_features, bias=False) for _ in range(num_experts))
        experts: Any = zip(self.lora_A, self.lora_B, strict=True)
        for a, b in experts:
            a.weight, b.weight = fresh_a(rank, layer), fresh_b(layer, rank)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.lora_B[0].weight.dtype)  # type: ignore[arg-type]
        _, experts, gates = self.pick(x)
        plan = DispatchPlan(experts, len(self.lora_A))
        y = self._experts(self.dropout(x).flatten(0, -2), gates, plan, self.terms.owners(x.shape[:-1]))
        return y.view(*x.shape[:-1], y.shape[-1])

    def _experts(self, x: Tensor, gates: Tensor, plan: DispatchPlan, owners: Tensor | None) -> Tensor:
        """Run every expert on all of its tokens; those without any are not run."""
        y: Tensor | None = None
        for expert, tokens, own, gate in zip(
            plan.experts, plan.tokens, plan.dispatch(x), plan.by_expert(gates), strict=True
        ):
            with nullcontext() if owners is None else task_rows(owners.index_select(0, tokens)):
                h = self.lora_A[expert](own)
                part = self.lora_B[expert](h * gate[:, None].to(h.dtype))
            y = part.new_zeros(len(x), part.shape[-1]) if y is None else y
            y.index_add_(0, tokens, part)  # in place, so that no expert's output outlives its turn
        assert y is not None
        return y
