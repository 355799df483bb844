"""The linear layers of a model that adapters go to, and the module that takes their place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D
from typing_extensions import override

from mtl_opt.batch import unflatten_rows
from mtl_opt.errors import InputError
from mtl_opt.models.lora import without_adapter

BLOCK = re.compile(r"^(.*?(?:^|\.)\d+)(?:\.|$)")
"""A path up to its first number, such as `model.layers.3`."""


@dataclass(frozen=True)
class LinearLayer:
    """Describe a layer that gets an adapter.

    Attributes:
        path: Its name in the model.
        module: The layer itself.
        block: Number of its transformer block, counted over the whole model; None outside any.
        num_blocks: Number of blocks of the model.
    """

    path: str
    module: Any
    block: int | None
    num_blocks: int

    @property
    def in_features(self) -> int:
        """Features of an input."""
        return self.module.weight.shape[0] if isinstance(self.module, Conv1D) else int(self.module.in_features)

    @property
    def out_features(self) -> int:
        """Features of an output."""
        return int(self.module.nf) if isinstance(self.module, Conv1D) else int(self.module.out_features)

    @property
    def device(self) -> torch.device:
        """Where its weight is."""
        return self.module.weight.device


class Adapter(Protocol):
    """What adds to the output of a linear layer."""

    def __call__(self, x: Tensor) -> Tensor:
        """Compute what is added: `[*rows, ..., in]` to `[*rows, ..., out]`."""

    def lora_of(self, task: int) -> tuple[Tensor, Tensor] | None:
        """Return `A` `[rank, in]` and the scaled `B` `[out, rank]` of a task; None if there is no fixed product."""


class AdaptedLinear(nn.Module):
    """Add the output of an adapter to that of a frozen linear layer, whose place it takes.

    An input that is flattened over the rows, `[batch * seq, in]`, is unflattened to `[batch, seq, in]` for the adapter.

    Args:
        base: The layer: `nn.Linear`, transformers' `Conv1D`, or one that bitsandbytes has quantised.
        adapter: What adds to it.
    """

    def __init__(self, base: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.base_layer: Any = base
        self.adapter = adapter

    @override
    def forward(self, x: Tensor, *inputs: Any, **options: Any) -> Tensor:
        y = self.base_layer(x, *inputs, **options)
        rows = unflatten_rows(x)
        added = self.adapter(x) if rows is None else self.adapter(rows).flatten(0, 1)
        return y + added.to(y.dtype)

    @property
    def weight(self) -> Tensor:
        """The frozen weight: some models look at its dtype."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base_layer.bias


def find_layers(model: nn.Module, target: str | Sequence[str]) -> list[LinearLayer]:
    """Find the linear layers to adapt: all but the output layer, or those that `target` names."""
    output_of = getattr(model, "get_output_embeddings", None)
    output = output_of() if callable(output_of) else None
    found = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not output
        and path.rpartition(".")[2] not in without_adapter(model)
    }
    if target != "all":
        found = {p: m for p, m in found.items() if any(p == t or p.endswith(f".{t}") for t in target)}
    if not found:
        raise InputError("`sharing` needs linear layers to adapt, and the model has none that `lora_target` names.")
    blocks: dict[str, int] = {}
    numbers: dict[str, int | None] = {}
    for path in found:
        match = BLOCK.match(path)
        numbers[path] = blocks.setdefault(match.group(1), len(blocks)) if match else None
    return [LinearLayer(path, module, numbers[path], len(blocks)) for path, module in found.items()]


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Replace a module of a model by its path."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
