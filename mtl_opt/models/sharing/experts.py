"""Gated experts: several LoRA experts for all tasks, some for one task alone, mixed by a gate of every task."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.batch import Segments
from mtl_opt.checks import at_least, named
from mtl_opt.models.lora import LoraSettings
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import fresh_a, fresh_b, low_rank_pair
from mtl_opt.models.sharing.parts.routing import TaskDropout, in_order, parameters_by_task, rows_of_tasks

GATES = ("task", "token")


class Experts(AdapterSharing):
    """MMoE and CGC over LoRA experts: `y = W x + s Σ_e g_te B_e A_e x` for a row of task `t`.

    The sum runs over `num_experts` shared experts (MMoE) and `private_experts` of the task's own (CGC, the layer of
    PLE). Every task has a gate: `g_t = softmax(w_t)`, the same for all its tokens (`gate: task`; what is added is then
    one LoRA of a task and can be merged), or `g_t = softmax(W_t x)`, token by token (`gate: token`, as in MMoE). Gates
    begin at equal weights. All experts have rank `lora_rank` and are computed for every row.

    Cost: that of LoRA with rank `(num_experts + private_experts) · rank`; with `gate: token` one product more,
    `[in, experts]`.

    Departures: experts are LoRA beside every target layer, not networks of their own, so that MMoE's and PLE's towers
    are the rest of the model; PLE's gate for shared experts between levels has no place here.

    Args:
        num_experts: Experts that all tasks share.
        gate: "task" or "token".
        private_experts: Experts of each task alone.

    Raises:
        ValueError: If an argument is not allowed.

    References:
        Ma, Zhao, Yi, Chen, Hong, Chi, `Modeling Task Relationships in Multi-task Learning with Multi-gate
        Mixture-of-Experts <https://dl.acm.org/doi/10.1145/3219819.3220007>`_, KDD 2018, equations 5 to 7; Tang, Liu,
        Zhao, Gong, `Progressive Layered Extraction <https://dl.acm.org/doi/10.1145/3383313.3412236>`_, RecSys 2020;
        the gate by task over LoRA is that of Liu et al., `MOELoRA <https://arxiv.org/abs/2310.18339>`_, SIGIR 2024.
    """

    summary: ClassVar[str] = "LoRA experts for all tasks and, where wanted, of each task, mixed by a gate of every task"
    paper = "Ma et al., MMoE, KDD 2018; Tang et al., PLE, RecSys 2020; Liu et al., MOELoRA, SIGIR 2024"

    def __init__(self, num_experts: int = 4, gate: str = "task", private_experts: int = 0) -> None:
        self.num_experts = at_least("num_experts", num_experts, 1)
        self.gate = named("gate", gate, GATES)
        self.private_experts = at_least("private_experts", private_experts, 0)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        own = {"num_experts": self.num_experts, "private_experts": self.private_experts}
        by_token = self.gate == "token"
        return GatedLora(layer, context.lora, context.tasks, context.of_tasks("dropout"), by_token=by_token, **own)


class GatedLora(nn.Module):
    """The adapter of one layer.

    Args:
        layer: The layer it adds to.
        lora: Rank, scale and dropout.
        tasks: Names of the tasks.
        dropout: Dropout by task, on the input of its rows; where it is missing that of `lora`.
        num_experts: Shared experts.
        private_experts: Experts of each task.
        by_token: Whether gates look at tokens.
    """

    def __init__(
        self,
        layer: LinearLayer,
        lora: LoraSettings,
        tasks: Sequence[str],
        dropout: Mapping[str, float] | None = None,
        *,
        num_experts: int = 4,
        private_experts: int = 0,
        by_token: bool = False,
    ) -> None:
        super().__init__()
        self.tasks, self.rank, self.num_shared, self.by_token = tuple(tasks), lora.rank, num_experts, by_token
        shared, own = num_experts * lora.rank, private_experts * lora.rank
        self.lora_A, self.lora_B = low_rank_pair(layer, [shared], shared)  # all shared experts stacked by rank
        wide = (layer.in_features,) if by_token else ()
        gates = (torch.zeros(num_experts + private_experts, *wide, device=layer.device) for _ in tasks)
        self.task_gate = nn.ParameterList(nn.Parameter(gate) for gate in gates)
        self.task_A = nn.ParameterList(fresh_a(own, layer) for _ in tasks if own)
        self.task_B = nn.ParameterList(fresh_b(layer, own) for _ in tasks if own)
        self.scaling = lora.scaling
        self.dropout = TaskDropout(tasks, lora.dropout, dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        segments = rows_of_tasks(x, len(self.tasks))
        x = self.dropout(x.to(self.lora_A.weight.dtype), segments, self.training)
        gated, own = self._gated(self.lora_A(x), x if self.by_token or len(self.task_A) else None, segments)
        return self.lora_B(gated) if own is None else self.lora_B(gated) + own

    def _gated(self, h: Tensor, x: Tensor | None, segments: Segments) -> tuple[Tensor, Tensor | None]:
        """Weight the features of the shared experts by the gates, and compute the output of the private ones."""
        inputs = (h,) if x is None else (h, x)
        if segments.equal:
            split = (t.reshape(len(self.tasks), -1, t.shape[-1]) for t in inputs)
            found = self._of_tasks(range(len(self.tasks)), *split)
            return found[0].view(h.shape), None if found[1] is None else found[1].view(*h.shape[:-1], -1)
        parts, own = [], []
        for task, rows in segments.split(*inputs):
            z, y = self._of_tasks([task], *(t.reshape(1, -1, t.shape[-1]) for t in rows))
            parts.append(z.view(*rows[0].shape))
            own += [] if y is None else [y.view(*rows[0].shape[:-1], -1)]
        where = list(segments.rows.values())
        whole = [in_order(p, where).view(*h.shape[:-1], -1) if p else None for p in (parts, own)]
        assert whole[0] is not None
        return whole[0], whole[1]

    def _of_tasks(
        self, tasks: Sequence[int], h: Tensor, x: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:  # [tasks, rows, experts * rank], [tasks, rows, in]
        """Gate the experts of tasks with equally many rows, in products batched over the tasks."""
        gates = self._gates(tasks, x)[..., None].to(h.dtype)  # [tasks, rows or 1, experts, 1]
        shared = (h.unflatten(-1, (self.num_shared, self.rank)) * gates[..., : self.num_shared, :]).flatten(-2)
        if x is None or not len(self.task_A):
            return shared, None
        own = x @ _stacked(self.task_A, tasks).mT
        own = (own.unflatten(-1, (-1, self.rank)) * gates[..., self.num_shared :, :]).flatten(-2)
        return shared, own @ _stacked(self.task_B, tasks).mT

    def _gates(self, tasks: Sequence[int], x: Tensor | None = None) -> Tensor:  # [tasks, rows, in]
        """Compute the gates, with the scale in them: `[tasks, rows, experts]`, by task `[tasks, 1, experts]`."""
        own = _stacked(self.task_gate, tasks)
        logits = x @ own.mT if self.by_token and x is not None else own[:, None]
        return logits.float().softmax(-1) * self.scaling

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List the private parameters by task.

        Returns:
            Gate and private experts of each task.
        """
        return parameters_by_task(self.tasks, *(g for g in (self.task_gate, self.task_A, self.task_B) if len(g)))

    def lora_of(self, task: int) -> tuple[Tensor, Tensor] | None:
        """Return the low-rank factors of a task.

        Args:
            task: Its index.

        Returns:
            `A` of all its experts below each other `[experts * rank, in]` and `B` side by side, with gate and scale in
            it `[out, experts * rank]`; None where gates look at tokens.
        """
        if self.by_token:
            return None
        own = [self.task_A[task]] if len(self.task_A) else []
        own_b = [self.task_B[task]] if len(self.task_A) else []
        gates = self._gates([task])[0, 0].repeat_interleave(self.rank)
        return torch.cat([self.lora_A.weight, *own]), torch.cat([self.lora_B.weight, *own_b], 1) * gates


def _stacked(parameters: nn.ParameterList, tasks: Sequence[int]) -> Tensor:  # -> [tasks, *shape]
    """Stack the parameters of tasks."""
    return torch.stack([parameters[task] for task in tasks])
