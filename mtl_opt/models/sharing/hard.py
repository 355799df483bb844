"""Hard sharing: one adapter for all tasks, or private ones in the last layers."""

import math
from typing import ClassVar

from torch import nn
from typing_extensions import override

from mtl_opt.checks import at_least
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import PrivateLora, SharedLora


class Hard(AdapterSharing):
    """One adapter for all tasks; only heads, where there are any, belong to one task.

    References:
        Caruana, `Multitask Learning <https://link.springer.com/article/10.1023/A:1007379606734>`_, Machine Learning
        28, 1997.
    """

    summary: ClassVar[str] = "one adapter for all tasks; heads, where there are any, are private"
    paper = "Caruana, Multitask Learning, Machine Learning 28, 1997"

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        return SharedLora(layer, context.lora)


class PrivateLayers(AdapterSharing):
    """One adapter for all tasks in the first blocks, one per task in the last.

    Args:
        layers: Number of last blocks with private adapters; default the last quarter, rounded up. Layers outside any
            block stay shared.

    Raises:
        ValueError: If `layers` is not at least 1.

    References:
        Long, Cao, Wang, Jordan, `Learning Transferable Features with Deep Adaptation Networks
        <https://arxiv.org/abs/1502.02791>`_, ICML 2015: first layers are general, last ones specific.
    """

    summary: ClassVar[str] = "one adapter for all tasks in the first blocks, one per task in the last"
    paper = "Long et al., Learning Transferable Features, ICML 2015, https://arxiv.org/abs/1502.02791"

    def __init__(self, layers: int | None = None) -> None:
        self.layers = None if layers is None else at_least("layers", layers, 1)

    @override
    def apply(self, context: SharingContext) -> None:
        blocks = context.layers[0].num_blocks
        if self.layers is not None and self.layers > blocks:
            raise ValueError(f"`layers` must be at most {blocks}, the blocks of the model, got {self.layers}.")
        super().apply(context)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        private = math.ceil(layer.num_blocks / 4) if self.layers is None else self.layers
        if layer.block is not None and layer.block >= layer.num_blocks - private:
            return PrivateLora(layer, context.lora, context.tasks, context.of_tasks("dropout"))
        return SharedLora(layer, context.lora)
