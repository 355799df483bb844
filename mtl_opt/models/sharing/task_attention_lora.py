"""Private attention inside a pretrained model: adapters on all its projections, or heads of each task's own."""

from typing import ClassVar

from torch import nn
from typing_extensions import override

from mtl_opt.checks import at_least
from mtl_opt.models.sharing.base import Sharing, SharingContext
from mtl_opt.models.sharing.parts.attention_heads import HeadLayout, PrivateHeads
from mtl_opt.models.sharing.parts.blocks import Blocks, attention_layers, check_blocks
from mtl_opt.models.sharing.parts.layers import AdaptedLinear, LinearLayer, replace_module
from mtl_opt.models.sharing.parts.lora import PrivateLora, SharedLora


class TaskAttentionLora(Sharing):
    """Private attention in chosen blocks, one adapter for all tasks everywhere else.

    In a chosen block each projection P of queries, keys, values and output becomes `P x + s B_t A_t x` for rows of
    task t. With `heads` the last so many query heads, with their keys and values, belong to each task alone: their rows
    of the projections to queries, keys and values, and their columns of the output projection, become `P + D_t` with
    a whole matrix `D_t` of the task's own, zero at the start; the other heads have the one adapter of all tasks. The
    projections are found by name (Llama, Qwen, Mistral, Gemma, OPT, GPT-2 with its fused `c_attn`, GPT-NeoX, BERT and
    their kin), whether `lora_target` names them or not.

    Cost: that of hard sharing per token; what is private is kept once per task, with `heads` about `4 · dim · h`
    numbers per block for `h` features of private heads.

    Args:
        layers: Number of last blocks, or a list of block numbers from 0; default the last quarter, rounded up.
        heads: Query heads of each task's own in a chosen block, whole groups where several share a key; default none:
            private adapters on the whole projections.

    Raises:
        ValueError: If `layers` names no blocks, or `heads` is not at least 1.

    References:
        Hu et al., `LoRA: Low-Rank Adaptation of Large Language Models <https://arxiv.org/abs/2106.09685>`_, ICLR 2022
        (adapters on attention); Liu, Johns, Davison, `End-to-End Multi-Task Learning with Attention
        <https://arxiv.org/abs/1803.10704>`_, CVPR 2019 (attention per task). The combination is ours.
    """

    summary: ClassVar[str] = "private adapters (or `heads`) in the attention of the last quarter of the blocks"
    paper = "after Liu et al., End-to-End MTL with Attention, CVPR 2019, https://arxiv.org/abs/1803.10704"

    def __init__(self, layers: Blocks = None, heads: int | None = None) -> None:
        self.layers = check_blocks(layers)
        self.heads = None if heads is None else at_least("heads", heads, 1)

    @override
    def apply(self, context: SharingContext) -> None:
        own = {layer.path: layer for layer in attention_layers(context.model, self.layers)}
        others = {layer.path: layer for layer in context.layers if layer.path not in own}
        layout = None
        if self.heads is not None:
            layout = HeadLayout(context.model.config, self.heads)
            layout.check(context.model, list(own.values()))
        private = {path: _private(layer, context, layout) for path, layer in own.items()}
        adapters: dict[str, nn.Module] = {path: SharedLora(layer, context.lora) for path, layer in others.items()}
        for path, layer in {**others, **own}.items():
            replace_module(context.model, path, AdaptedLinear(layer.module, {**adapters, **private}[path]))


def _private(layer: LinearLayer, context: SharingContext, layout: HeadLayout | None) -> nn.Module:
    """Build what each task adds to a projection of its own."""
    dropout = context.of_tasks("dropout")
    if layout is None:
        return PrivateLora(layer, context.lora, context.tasks, dropout)
    return PrivateHeads(layer, context.lora, context.tasks, *layout.private_features(layer), dropout)
