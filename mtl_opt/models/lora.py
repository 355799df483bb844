"""LoRA adapters by peft: their settings, and fresh adapters put into the target layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from mtl_opt.errors import InputError
from mtl_opt.models.starting_adapter import put_adapter


@dataclass(frozen=True)
class LoraSettings:
    """Settings of the LoRA adapters in a model.

    Attributes:
        rank: Rank of every adapter.
        alpha: Scale of the adapters; the update is multiplied by alpha / rank.
        dropout: Share of the adapter inputs that are dropped in training.
        target: "all" for every linear layer but the output layer, or names of layers.
        rslora: Multiply the update by alpha / sqrt(rank) instead.
        dora: Learn the length of every output's weights apart from their direction (DoRA).
        start: Folder or hub name of an adapter to go on from, whose layers and ranks are then taken; None: a fresh one.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target: str | tuple[str, ...] = "all"
    rslora: bool = False
    dora: bool = False
    start: str | None = None

    @property
    def scaling(self) -> float:
        """Factor on the product `B A` of an adapter."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def with_adapters(model: nn.Module, lora: LoraSettings, weights: bool = True) -> nn.Module:
    """Wrap a model by peft with fresh adapters in the target layers, or with those to go on from."""
    if lora.start is not None:
        return put_adapter(model, lora.start, lora.dropout, lora.target == "all", weights)
    config = lora_config(model, lora)
    if not isinstance(config.target_modules, str):
        _check_targets(model, sorted(config.target_modules))
    return get_peft_model(model, config)


def lora_config(model: Any, lora: LoraSettings) -> LoraConfig:
    """Translate the settings into a configuration of peft."""
    return LoraConfig(
        task_type="FEATURE_EXTRACTION" if model.get_output_embeddings() is None else "CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear" if lora.target == "all" else list(lora.target),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )


def weight_adapters(model: nn.Module) -> str | None:
    """Find a layer whose adapter is added to its weights, such as that of fused experts or of a router.

    Args:
        model: The model.

    Returns:
        Its path; None where every adapter runs on the rows that its layer gets.
    """
    return next((path for path, module in model.named_modules() if isinstance(module, ParamWrapper)), None)


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Raise if a target matches no linear layer."""
    # peft itself complains only when none of the targets matches.
    names = {
        path for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }  # Conv1D: GPT-2's
    endings = {path.rsplit(".", 1)[-1] for path in names}
    for target in targets:
        if not any(path == target or path.endswith(f".{target}") for path in names):
            near = get_close_matches(target, endings, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            allowed = ", ".join(sorted(endings))
            raise InputError(f"`lora_target` names `{target}`, but no linear layer has it.{hint} Layers: {allowed}.")
