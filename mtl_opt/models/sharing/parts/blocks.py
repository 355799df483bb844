"""Transformer blocks of a model: which of them a way of sharing changes, and where their attention is projected."""

import math
import re
from collections.abc import Sequence

from torch import nn

from mtl_opt.errors import InputError
from mtl_opt.models.sharing.parts.layers import BLOCK, LinearLayer, find_layers

Blocks = int | Sequence[int] | None
"""A number of last blocks, the blocks themselves counted from 0, or None for the last quarter."""

ATTENTION = re.compile("attn|attention", re.IGNORECASE)
"""What a module of attention is called, by its name or its class."""

PROJECTION = re.compile(
    r"(?:[qkvo]_proj|out_proj|qkv_proj|(?:query|key|value)_proj"  # Llama, Qwen, Gemma, OPT, GPT-J, Phi, DeBERTa
    r"|c_attn|c_proj"  # GPT-2: query, key and value in one
    r"|query|key|value|query_key_value|dense"  # BERT, GPT-NeoX, Bloom, Falcon
    r"|[qkv]_lin|out_lin|Wqkv|Wo|[qkvo])",  # DistilBERT, ModernBERT, T5
    re.IGNORECASE,
)
"""Names of the layers that project to queries, keys and values and back."""


def check_blocks(blocks: Blocks) -> Blocks:
    """Check the form of `layers`, whatever the model."""
    if blocks is None:
        return None
    if isinstance(blocks, int) and not isinstance(blocks, bool):
        if blocks >= 1:
            return blocks
    elif isinstance(blocks, list | tuple) and blocks:
        whole = all(isinstance(b, int) and not isinstance(b, bool) and b >= 0 for b in blocks)
        if whole and len(set(blocks)) == len(blocks):
            return blocks
    raise ValueError(
        "`layers` must be a whole number of last blocks, at least 1, or a list of different block numbers from 0, got "
        f"{blocks!r}."
    )


def chosen_blocks(blocks: Blocks, num_blocks: int) -> list[int]:
    """Resolve `layers` to block numbers of a model."""
    if num_blocks == 0:
        raise ValueError("the model has no numbered transformer blocks, so its architecture is not supported.")
    if blocks is None:
        blocks = math.ceil(num_blocks / 4)
    if isinstance(blocks, int):
        if blocks > num_blocks:
            raise ValueError(f"`layers` must be at most {num_blocks}, the blocks of the model, got {blocks}.")
        return list(range(num_blocks - blocks, num_blocks))
    beyond = [block for block in blocks if block >= num_blocks]
    if beyond:
        raise ValueError(f"`layers` must name blocks from 0 to {num_blocks - 1}, got {beyond[0]}.")
    return sorted(blocks)


def block_paths(model: nn.Module) -> list[str]:
    """Find the transformer blocks of a model."""
    found: dict[str, None] = {}
    for layer in find_layers(model, "all"):
        match = BLOCK.match(layer.path)
        if match:
            found.setdefault(match.group(1))
    return list(found)


def attention_layers(model: nn.Module, blocks: Blocks) -> list[LinearLayer]:
    """Find the linear layers that project to queries, keys and values and back."""
    layers = find_layers(model, "all")
    chosen = chosen_blocks(blocks, layers[0].num_blocks)
    projections = [layer for layer in layers if _is_projection(model, layer.path)]
    able = sorted({layer.block for layer in projections if layer.block is not None})
    for block in chosen:
        if block in able:
            continue
        if able:
            raise InputError(
                f"`sharing: task_attention`: block {block} of {type(model).__name__} has no attention; name by "
                f"`layers` some of its blocks {', '.join(map(str, able))}."
            )
        names = ", ".join(sorted({layer.path.rpartition(".")[2] for layer in layers if layer.block == block}))
        raise InputError(
            f"`sharing: task_attention` finds no attention in block {block} of {type(model).__name__}, so its "
            f"architecture is not supported (linear layers there: {names})."
        )
    return [layer for layer in projections if layer.block in chosen]


def _is_projection(model: nn.Module, path: str) -> bool:
    """Return whether a layer is called as a projection, below a module that is attention by its name or class."""
    above, _, name = path.rpartition(".")
    parent = model.get_submodule(above)
    return bool(PROJECTION.fullmatch(name) and (ATTENTION.search(above) or ATTENTION.search(type(parent).__name__)))
