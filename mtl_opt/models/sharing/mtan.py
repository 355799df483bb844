"""Soft masks of each task's own on shared features."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.checks import at_least
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.parts.blocks import Blocks, block_paths, check_blocks, chosen_blocks
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import SharedLora
from mtl_opt.models.sharing.parts.private_linear import PrivateLinear

MASK = "task_mask"
"""Name of the mask in its block."""


class TaskMask(nn.Module):
    """Weigh every feature of a row by the mask of its task: `h ⊙ 2 σ(U_t relu(D_t h + d_t) + u_t)`, 1 at the start.

    Args:
        dim: Features of a token.
        bottleneck: Features between the two layers of a mask.
        tasks: Names of the tasks.
    """

    def __init__(self, dim: int, bottleneck: int, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.down = PrivateLinear(dim, bottleneck, tasks)
        self.up = PrivateLinear(bottleneck, dim, tasks, zero=True)

    @override
    def forward(self, h: Tensor) -> Tensor:
        return h * (2 * torch.sigmoid(self.up(self.down(h).relu()))).to(h.dtype)


class MTAN(AdapterSharing):
    """One adapter for all tasks, and soft masks of each task's own on the outputs of chosen blocks.

    The output h of a chosen block becomes `h ⊙ 2 σ(U_t relu(D_t h + d_t) + u_t)` for rows of task t: features that all
    tasks share, of which each selects its own. Adapters are shared, the two layers of every mask are private.

    Cost: `4 · dim · bottleneck` operations per token in each chosen block.

    Departures from the paper: the mask is twice a sigmoid, so that it is 1 at the start and the pretrained model is
    what training begins with; the masked features replace the shared ones in the blocks above instead of feeding a
    network beside them (each row belongs to one task, so there is one stream per row); no batch norm.

    Args:
        layers: Number of last blocks, or a list of block numbers from 0; default the last quarter, rounded up.
        bottleneck: Features between the two layers of a mask; default a sixteenth of the hidden size, at least 8.

    Raises:
        ValueError: If `layers` names no blocks or `bottleneck` is not at least 1.

    References:
        Liu, Johns, Davison, `End-to-End Multi-Task Learning with Attention <https://arxiv.org/abs/1803.10704>`_, CVPR
        2019, equations 1 and 2.
    """

    summary: ClassVar[str] = "one adapter for all tasks; private soft masks on the last quarter of the blocks"
    paper = "Liu et al., End-to-End MTL with Attention, CVPR 2019, https://arxiv.org/abs/1803.10704"

    def __init__(self, layers: Blocks = None, bottleneck: int | None = None) -> None:
        self.layers = check_blocks(layers)
        self.bottleneck = None if bottleneck is None else at_least("bottleneck", bottleneck, 1)

    @override
    def apply(self, context: SharingContext) -> None:
        config = getattr(context.model, "config", None)
        if config is None:
            raise ValueError("the model has no configuration that names its hidden size, so it is not supported.")
        dim = int(config.get_text_config().hidden_size)
        paths = block_paths(context.model)
        bottleneck = self.bottleneck or max(8, dim // 16)
        for block in chosen_blocks(self.layers, len(paths)):
            module = context.model.get_submodule(paths[block])
            module.add_module(MASK, TaskMask(dim, bottleneck, context.tasks).to(context.layers[0].device))
            module.register_forward_hook(mask_output)
        super().apply(context)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        return SharedLora(layer, context.lora)


def mask_output(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001 - the signature of a hook
    """Mask what a block gives: a tensor, or a tuple with one first."""
    mask = module.get_submodule(MASK)
    return mask(output) if isinstance(output, Tensor) else (mask(output[0]), *output[1:])
