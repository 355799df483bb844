"""LoRA adapters by peft: their settings, and fresh adapters put into the target layers."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from mtl_opt.errors import InputError
from mtl_opt.models.starting_adapter import put_adapter

logger = logging.getLogger(__name__)

STATE_SPACE = frozenset({"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"})
"""Kinds of models in which peft refuses the output projection of the state space and its convolution."""


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
        with quiet_patterns():
            return put_adapter(model, lora.start, lora.dropout, lora.target == "all", weights)
    config = lora_config(model, lora)
    if not isinstance(config.target_modules, str):
        _check_targets(model, sorted(config.target_modules))
    with quiet_patterns():
        found: Any = get_peft_model(model, config)
    _note_choices(found, config, lora)
    return found


@contextmanager
def quiet_patterns() -> Iterator[None]:
    """Suppress peft's warning that the rank of fused experts was ignored; it looks at modules alone, and was not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
        yield


def lora_config(model: Any, lora: LoraSettings) -> LoraConfig:
    """Translate the settings into a configuration of peft."""
    return LoraConfig(
        task_type=task_type(model),
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(model, lora.target),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )


def task_type(model: Any) -> str:
    """Name what a model does, in the words of peft."""
    if model.get_output_embeddings() is None:
        return "FEATURE_EXTRACTION"
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def _targets(model: Any, target: str | tuple[str, ...]) -> str | list[str]:
    """List the layers that get an adapter, in the words of peft."""
    refused = without_adapter(model)
    if target != "all":
        wrong = [name for name in target if name.rpartition(".")[2] in refused]
        if wrong:
            raise InputError(
                f"`lora_target` names `{wrong[0]}`, which can carry no adapter in `{type(model).__name__}`: its fused "
                "code reads the weight itself; leave it out."
            )
        return list(target)
    if not refused:
        return "all-linear"
    output = model.get_output_embeddings()
    linear = [p for p, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not output]
    return sorted({name for path in linear if (name := path.rpartition(".")[2]) not in refused})


def without_adapter(model: Any) -> frozenset[str]:
    """Name the layers of a model that can carry no adapter, because fused code reads their weight."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    return frozenset({"out_proj", "conv1d"}) if kind in STATE_SPACE else frozenset()


def _note_choices(model: Any, config: LoraConfig, lora: LoraSettings) -> None:
    """Say which linear layers `lora_target: all` leaves out, and where an adapter has another rank."""
    base = model.get_base_model()
    output = base.get_output_embeddings()
    left = {
        path.rpartition(".")[2]
        for path, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not output
        and ".lora_" not in path
        and ".base_layer" not in path
    }
    if lora.target == "all" and left:
        names = ", ".join(f"`{name}`" for name in sorted(left))
        logger.info("`lora_target: all`: peft puts no adapter on some layers called %s of this model.", names)
    for pattern, rank in config.rank_pattern.items():
        name = pattern.rpartition(".")[2]
        logger.info(
            "The adapter of `%s`, several projections in one, has rank %d; others have %d.", name, rank, lora.rank
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
