"""Private attention inside a pretrained model: each task its own adapters on queries, keys, values and output."""

from typing import ClassVar

from torch import nn
from typing_extensions import override

from mtl_opt.models.sharing.base import Sharing, SharingContext
from mtl_opt.models.sharing.parts.blocks import Blocks, attention_layers, check_blocks
from mtl_opt.models.sharing.parts.layers import AdaptedLinear, replace_module
from mtl_opt.models.sharing.parts.lora import PrivateLora, SharedLora


class TaskAttentionLora(Sharing):
    """Private adapters on the attention projections of chosen blocks, one adapter for all tasks everywhere else.

    In a chosen block each projection P of queries, keys, values and output becomes `P x + s B_t A_t x` for rows of
    task t. The projections are found by name (Llama, Qwen, Mistral, Gemma, OPT, GPT-2 with its fused `c_attn`,
    GPT-NeoX, BERT and their kin), whether `lora_target` names them or not.

    Cost: that of hard sharing per token; the private adapters are kept once per task.

    Args:
        layers: Number of last blocks, or a list of block numbers from 0; default the last quarter, rounded up.

    Raises:
        ValueError: If `layers` names no blocks.

    References:
        Hu et al., `LoRA: Low-Rank Adaptation of Large Language Models <https://arxiv.org/abs/2106.09685>`_, ICLR 2022
        (adapters on attention); Liu, Johns, Davison, `End-to-End Multi-Task Learning with Attention
        <https://arxiv.org/abs/1803.10704>`_, CVPR 2019 (attention per task). The combination is ours.
    """

    summary: ClassVar[str] = "private adapters on q, k, v and o of the last quarter of the blocks, the rest for all"
    paper = "after Liu et al., End-to-End MTL with Attention, CVPR 2019, https://arxiv.org/abs/1803.10704"

    def __init__(self, layers: Blocks = None) -> None:
        self.layers = check_blocks(layers)

    @override
    def apply(self, context: SharingContext) -> None:
        own = {layer.path: layer for layer in attention_layers(context.model, self.layers)}
        others = {layer.path: layer for layer in context.layers if layer.path not in own}
        for path, layer in {**others, **own}.items():
            adapter: nn.Module = SharedLora(layer, context.lora)
            if path in own:
                adapter = PrivateLora(layer, context.lora, context.tasks, context.of_tasks("dropout"))
            replace_module(context.model, path, AdaptedLinear(layer.module, adapter))
