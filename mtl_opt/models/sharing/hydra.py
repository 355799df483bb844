"""HydraLoRA: one first matrix, several second ones, and a router that mixes them token by token."""

from typing import ClassVar

from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.checks import at_least
from mtl_opt.models.lora import LoraSettings
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import low_rank_pair


class Hydra(AdapterSharing):
    """HydraLoRA: `y = W x + s Σ_n softmax(R x)_n B_n A x`, everything shared.

    `A` `[rank, in]`, `B_n` `[out, rank]` and the router `R` `[n, in]` are trained by all tasks; the router sees tokens
    and no task. Nothing belongs to one task, and what is added is no fixed product, so that it cannot be merged.

    Cost: that of LoRA with rank `rank + n` in and `n · rank` out.

    Departures: `A` and `R` are one layer (`lora_A`: first the lines of `A`, then those of `R`), which is one product
    instead of two; so with `lora_dropout` the router sees dropped inputs too.

    Args:
        num_b: Number `n` of second matrices.

    Raises:
        ValueError: If `num_b` is not at least 1.

    References:
        Tian, Shi, Guo, Li, Xu, `HydraLoRA: An Asymmetric LoRA Architecture for Efficient Fine-Tuning
        <https://arxiv.org/abs/2404.19245>`_, NeurIPS 2024, equations 4 and 5.
    """

    summary: ClassVar[str] = "one A and several B for all tasks, mixed token by token by a shared router"
    paper = "Tian et al., HydraLoRA, NeurIPS 2024, https://arxiv.org/abs/2404.19245"

    def __init__(self, num_b: int = 3) -> None:
        self.num_b = at_least("num_b", num_b, 1)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        return RoutedLora(layer, context.lora, self.num_b)


class RoutedLora(nn.Module):
    """The adapter of one layer.

    Args:
        layer: The layer it adds to.
        lora: Rank, scale and dropout.
        num_b: Number of second matrices.
    """

    def __init__(self, layer: LinearLayer, lora: LoraSettings, num_b: int) -> None:
        super().__init__()
        self.num_b = num_b
        # A and the router stacked in one layer, and the B_n side by side
        self.lora_A, self.lora_B = low_rank_pair(layer, [lora.rank, num_b], num_b * lora.rank)
        self.scaling = lora.scaling
        self.dropout = nn.Dropout(lora.dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        h = self.lora_A(self.dropout(x.to(self.lora_A.weight.dtype)))
        weights = h[..., -self.num_b :].float().softmax(-1).to(h.dtype) * self.scaling
        mixed = weights[..., :, None] * h[..., None, : -self.num_b]  # [..., num_b, rank]
        return self.lora_B(mixed.flatten(-2))

    def lora_of(self, task: int) -> None:
        """Return None: the router depends on the token, so there is no fixed product for a task.

        Args:
            task: Any task.
        """
