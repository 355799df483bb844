"""Sparse experts: every token goes to the few LoRA experts that a shared router picks, and only those are computed."""

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.batch import task_rows
from mtl_opt.models.lora_settings import LoraSettings
from mtl_opt.models.sharing.arguments import at_least, positive
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.dispatch import Plan, collect, dispatch
from mtl_opt.models.sharing.layers import LinearLayer
from mtl_opt.models.sharing.lora import fresh_a, fresh_b, scaling_of
from mtl_opt.models.sharing.token_means import TokenMeans


class SparseExperts(AdapterSharing):
    """Top-k of several LoRA experts per token: `y = W x + s Σ_{e in top-k} p_e B_e A_e x`, everything shared.

    `p` is the softmax of the router `R x` over the k experts with the largest logits (with k = 1 over all, as in the
    Switch Transformer: over one it would be 1 and the router would learn nothing). Tokens are sorted by expert and
    every expert gets one product of all its tokens: no capacity, no token is dropped, and experts without tokens cost
    nothing.

    Two terms per target layer are added to every task's loss: `balance_loss` times `E Σ_e f_e P_e` (`f_e`: the share of
    the task's picks that go to expert `e`; `P_e`: its mean probability; 1 where all experts are used alike), and
    `z_loss` times the mean of `logsumexp(R x)²`. Both are means over the task's own tokens, averaged over the layers,
    so that a task's gradient depends on its own rows alone. Padding counts for nothing where the model is called with
    an `attention_mask` `[batch, seq]`; packed rows have none, and the fill at their end is counted.

    Cost: that of LoRA with rank `top_k · rank`, a product `[in, num_experts]`, and copies of the tokens' inputs and
    outputs, `top_k` of each. Which task owns a token is found again for every expert (engine `one_pass`).

    Departures: MixLoRA has experts in the feed-forward layers only, with one router for all of their matrices; here
    every target layer has its own (`lora_target` chooses them). The balance is per task, not over the batch.

    Args:
        num_experts: Number of experts.
        top_k: Experts of a token.
        balance_loss: Strength of the balance loss; 0: none.
        z_loss: Strength of the z-loss; 0: none.

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

    def __init__(self, num_experts: int = 4, top_k: int = 2, balance_loss: float = 0.01, z_loss: float = 0.001) -> None:
        self.num_experts = at_least("num_experts", num_experts, 2)
        self.top_k = at_least("top_k", top_k, 1)
        if self.top_k > self.num_experts:
            raise ValueError(f"`top_k` must be at most `num_experts`, {self.num_experts}, got {self.top_k}.")
        self.balance_loss = positive("balance_loss", balance_loss, zero=True)
        self.z_loss = positive("z_loss", z_loss, zero=True)
        self._adapters: list[SparseLora] = []

    @override
    def apply(self, context: SharingContext) -> None:
        self._means = TokenMeans(len(context.tasks))
        context.model.register_forward_pre_hook(self._means.see_mask, with_kwargs=True)
        super().apply(context)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        strengths = (self.balance_loss / len(context.layers), self.z_loss / len(context.layers))
        adapter = SparseLora(layer, context.lora, self.num_experts, self.top_k, strengths, self._means)
        self._adapters.append(adapter)
        return adapter

    @override
    def report(self) -> dict[str, float]:
        loads = [adapter.load for adapter in self._adapters if adapter.load is not None]
        if not loads:
            return {}
        mean = torch.stack(loads).max(-1).values.mean()
        return {"largest_expert_load": float(mean)}


class SparseLora(nn.Module):
    """The adapter of one layer.

    Args:
        layer: The layer it adds to.
        lora: Rank, scale and dropout.
        num_experts: Number of experts.
        top_k: Experts of a token.
        strengths: Of balance loss and z-loss.
        means: Takes means over the tokens of each task.
    """

    def __init__(
        self,
        layer: LinearLayer,
        lora: LoraSettings,
        num_experts: int,
        top_k: int,
        strengths: tuple[float, float],
        means: TokenMeans,
    ) -> None:
        super().__init__()
        self.top_k, self.strengths, self.means = top_k, strengths, means
        self.router = nn.Linear(layer.in_features, num_experts, bias=False)
        self.router.weight = fresh_a(num_experts, layer)
        self.lora_A = nn.ModuleList(nn.Linear(layer.in_features, lora.rank, bias=False) for _ in range(num_experts))
        self.lora_B = nn.ModuleList(nn.Linear(lora.rank, layer.out_features, bias=False) for _ in range(num_experts))
        experts: Any = zip(self.lora_A, self.lora_B, strict=True)
        for a, b in experts:
            a.weight, b.weight = fresh_a(lora.rank, layer), fresh_b(layer, lora.rank)
        self.scaling = scaling_of(lora)
        self.dropout = nn.Dropout(lora.dropout)
        self.load: Tensor | None = None
        self._terms: Tensor | None = None

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.lora_B[0].weight.dtype)  # type: ignore[arg-type, union-attr]
        logits = self.router(x).flatten(0, -2).float()  # [tokens, experts]
        best, experts = logits.topk(self.top_k)
        gates = (best - logits.logsumexp(-1, keepdim=True)).exp() if self.top_k == 1 else best.softmax(-1)
        if self.training and any(self.strengths):
            terms = self._row_terms(logits, experts, x.shape[:-1])
            if not _recomputing():  # the terms were taken; these would only keep memory
                self._terms = terms
        plan = Plan(experts, len(self.lora_A))
        owners = self.means.owners(x.shape[:-1])
        y = self._experts(self.dropout(x).flatten(0, -2), gates * self.scaling, plan, owners)
        return y.view(*x.shape[:-1], y.shape[-1])

    def _experts(self, x: Tensor, gates: Tensor, plan: Plan, owners: Tensor | None) -> Tensor:
        """Run every expert on all of its tokens; those without any are not run."""
        sorted_x = dispatch(x, plan)  # [tokens * top_k, in]
        sorted_gates = gates.flatten()[plan.order, None]
        ids = None if owners is None else owners[plan.tokens]
        outputs = []
        for expert, rows in plan.rows.items():
            with nullcontext() if ids is None else task_rows(ids[rows]):
                h = self.lora_A[expert](sorted_x[rows])
                outputs.append(self.lora_B[expert](h * sorted_gates[rows].to(h.dtype)))
        return collect(torch.cat(outputs), plan)

    def _row_terms(self, logits: Tensor, experts: Tensor, shape: torch.Size) -> Tensor | None:  # -> [tasks]
        """Compute balance loss and z-loss of every task, with their strengths; 0 for an absent one."""
        matrix = self.means.matrix(shape)
        if matrix is None:
            return None
        number = logits.shape[-1]
        level = logits.logsumexp(-1, keepdim=True)
        with torch.no_grad():
            picked = torch.zeros_like(logits).scatter_(1, experts, 1 / self.top_k)
            shares = matrix @ picked  # [tasks, experts]
            self.load = picked.mean(0)
        means = matrix @ torch.cat([(logits - level).exp(), level.square()], 1)
        return self.strengths[0] * number * (shares * means[:, :-1]).sum(-1) + self.strengths[1] * means[:, -1]

    def take_row_terms(self) -> Tensor | None:  # -> [tasks]
        """Hand over the terms of the last forward in training.

        Returns:
            Balance loss and z-loss of every task, a mean over its tokens; None where there are none. `[tasks]`
        """
        terms, self._terms = self._terms, None
        return terms

    def lora_of(self, task: int) -> None:
        """Say that what is added is no fixed product: the router sees every token.

        Args:
            task: Any task.
        """


def _recomputing() -> bool:
    """Tell whether this forward is that of activation checkpointing, in the middle of a backward."""
    return bool(torch._C._current_graph_task_id() != -1)
