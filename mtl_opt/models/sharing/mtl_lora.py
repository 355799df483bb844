"""MTL-LoRA: one first matrix, several second ones, and a transformation and a mixture of each task's own."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mtl_opt.batch import Segments
from mtl_opt.checks import at_least, named, positive
from mtl_opt.models.lora import LoraSettings
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import low_rank_pair
from mtl_opt.models.sharing.parts.routing import TaskDropout, by_task, parameters_by_task, rows_of_tasks

TRANSFORMS = ("full", "diagonal")


class MTLLoRA(AdapterSharing):
    """MTL-LoRA: `y = W x + s Σ_n softmax(w_t / τ)_n B_n Λ_t A x` for a row of task `t`.

    `A` `[rank, in]` and the `B_n` `[out, rank]` are shared; `Λ_t` `[rank, rank]` and `w_t` `[n]` belong to one task. At
    the start `Λ_t` is the identity and every `B_n` is zero. `s` is alpha / rank. The softmax subtracts its largest
    entry, so that a small `τ` overflows in no number format.

    Cost: that of LoRA with rank `rank` in and `n · rank` out, and a product `[rank, n · rank]` per row; for a task it
    is one LoRA of rank `rank`, so that it can be merged.

    Departures: `w_t` is drawn from a normal distribution with deviation `τ`, apart for every task. With equal weights
    and `B_n = 0` all `B_n` would get the same gradient and stay equal for ever.

    Args:
        num_b: Number `n` of second matrices.
        temperature: `τ`; the smaller, the closer a task is to one `B_n` alone.
        transform: "full" for `Λ_t` of `[rank, rank]`, "diagonal" for a factor per rank.

    Raises:
        ValueError: If an argument is not allowed.

    References:
        Yang, Muhtar, Shen et al., `MTL-LoRA: Low-Rank Adaptation for Multi-Task Learning
        <https://arxiv.org/abs/2410.09437>`_, AAAI 2025, equations 3 to 5.
    """

    summary: ClassVar[str] = "one A and several B for all tasks, a small transformation and a mixture of B per task"
    paper = "Yang et al., MTL-LoRA, AAAI 2025, https://arxiv.org/abs/2410.09437"

    def __init__(self, num_b: int = 3, temperature: float = 0.1, transform: str = "full") -> None:
        self.num_b = at_least("num_b", num_b, 1)
        self.temperature = positive("temperature", temperature)
        self.transform = named("transform", transform, TRANSFORMS)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        return MixedLora(
            layer,
            context.lora,
            context.tasks,
            context.of_tasks("dropout"),
            num_b=self.num_b,
            temperature=self.temperature,
            diagonal=self.transform == "diagonal",
        )


class MixedLora(nn.Module):
    """The adapter of one layer.

    Args:
        layer: The layer it adds to.
        lora: Rank, scale and dropout.
        tasks: Names of the tasks.
        dropout: Dropout by task, on the input of its rows; where it is missing that of `lora`.
        num_b: Number of second matrices.
        temperature: Of the softmax.
        diagonal: Whether a task's transformation is a factor per rank.
    """

    def __init__(
        self,
        layer: LinearLayer,
        lora: LoraSettings,
        tasks: Sequence[str],
        dropout: Mapping[str, float] | None = None,
        *,
        num_b: int = 3,
        temperature: float = 0.1,
        diagonal: bool = False,
    ) -> None:
        super().__init__()
        self.tasks, self.num_b, self.temperature, self.diagonal = tuple(tasks), num_b, temperature, diagonal
        self.lora_A, self.lora_B = low_rank_pair(layer, [lora.rank], num_b * lora.rank)  # the B_n side by side
        start = torch.ones(lora.rank) if diagonal else torch.eye(lora.rank)
        self.task_transform = nn.ParameterList(nn.Parameter(start.to(layer.device, copy=True)) for _ in tasks)
        self.task_mixture = nn.ParameterList(
            nn.Parameter(temperature * torch.randn(num_b, device=layer.device)) for _ in tasks
        )
        self.scaling = lora.scaling
        self.dropout = TaskDropout(tasks, lora.dropout, dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        segments = rows_of_tasks(x, len(self.tasks))
        x = self.dropout(x.to(self.lora_A.weight.dtype), segments, self.training)
        return self.lora_B(self._mix(self.lora_A(x), segments))

    def _mix(self, h: Tensor, segments: Segments) -> Tensor:  # [*ids, ..., rank] -> [*ids, ..., num_b * rank]
        """Apply the task's transformation to every row, once per second matrix, with its mixture weight."""
        if not segments.equal:
            return by_task(h, segments, lambda task, rows: F.linear(rows, self._matrices([task])[0].to(rows.dtype)))
        rows = h.reshape(len(self.tasks), -1, h.shape[-1])
        z = rows @ self._matrices(range(len(self.tasks))).mT.to(h.dtype)
        return z.view(*h.shape[:-1], z.shape[-1])

    def _matrices(self, tasks: Sequence[int]) -> Tensor:  # -> [tasks, num_b * rank, rank]
        """Stack `s softmax(w_t / τ)_n Λ_t` over n, in float32."""
        transforms = torch.stack([self.task_transform[task] for task in tasks])
        if self.diagonal:
            transforms = transforms.diag_embed()
        weights = self.mixture(tasks) * self.scaling
        return (weights[:, :, None, None] * transforms[:, None]).flatten(1, 2)

    def mixture(self, tasks: Sequence[int]) -> Tensor:  # -> [tasks, num_b]
        """Compute the weights of the second matrices for some tasks.

        Args:
            tasks: Their indices.

        Returns:
            Weights that sum to 1. `[tasks, num_b]`
        """
        return (torch.stack([self.task_mixture[task] for task in tasks]) / self.temperature).softmax(-1)

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List the private parameters by task.

        Returns:
            Transformation and mixture of each task.
        """
        return parameters_by_task(self.tasks, self.task_transform, self.task_mixture)

    def lora_of(self, task: int) -> tuple[Tensor, Tensor]:
        """Return the low-rank factors of a task.

        Args:
            task: Its index.

        Returns:
            `Λ A` `[rank, in]` and the mixed `B` with the scale in it `[out, rank]`.
        """
        transform = self.task_transform[task].diag() if self.diagonal else self.task_transform[task]
        seconds = self.lora_B.weight.unflatten(1, (self.num_b, -1))  # [out, num_b, rank]
        b = torch.einsum("n,onr->or", self.mixture([task])[0] * self.scaling, seconds)
        return transform @ self.lora_A.weight, b
