"""What a configuration says of the model, in the words of the box `models`."""

from typing import Any

import torch

from mtl_opt.combiners import Combiner
from mtl_opt.errors import InputError
from mtl_opt.models import LoraSettings, QuantizationSettings, check_packing, check_routing, enable_checkpointing
from mtl_opt.training.config.run_config import TrainConfig, precision_of
from mtl_opt.training.processes import world_size


def adapter_settings(config: TrainConfig) -> LoraSettings | None:
    """Read how adapters are put into the model."""
    if config.finetuning_type == "full":
        return None
    return LoraSettings(
        rank=config.lora_rank,
        alpha=config.lora_alpha or 2 * config.lora_rank,
        dropout=config.lora_dropout,
        target="all" if config.lora_target == ["all"] else tuple(config.lora_target),
        rslora=config.use_rslora,
        dora=config.use_dora,
    )


def base_dtype(config: TrainConfig) -> torch.dtype:
    """Choose the number format of the base's weights."""
    return (precision_of(config) if config.finetuning_type == "lora" else None) or torch.float32


def quantization_settings(config: TrainConfig) -> QuantizationSettings | None:
    """Read how the base's weights are stored."""
    if config.quantization_bit is None:
        return None
    found = QuantizationSettings(4 if config.quantization_bit == 4 else 8, double=config.double_quantization)
    return found if config.quantization_type == "nf4" else QuantizationSettings(found.bit, "fp4", found.double)


def engine_of(config: TrainConfig) -> tuple[str, str]:
    """Choose the gradient engine to ask for."""
    if config.torch_compile and config.gradient_engine == "auto":
        return "per_task", "the model is compiled, and compiled code does not see the layers that one_pass replaces"
    return config.gradient_engine, ""


def fit_model(config: TrainConfig, model: Any) -> None:
    """Make a loaded model ready for the way it will be trained, or say why it cannot be trained so."""
    _check_fsdp(config)
    if config.packing:
        check_packing(model)
    if config.gradient_checkpointing:
        enable_checkpointing(model)
    precision = precision_of(config)
    with torch.autocast(next(model.parameters()).device.type, precision, enabled=precision is not None):
        check_routing(model, config.sharing)


def check_rows(config: TrainConfig, combiner: Combiner) -> None:
    """Refuse packed rows for a combiner that needs each task's rows one by one."""
    if config.packing and combiner.requires == "halves":
        raise InputError(
            f"`packing: true` does not go with `combiner: {config.combiner}`, which deals whole rows to two halves; "
            "use `packing: false`."
        )


def _check_fsdp(config: TrainConfig) -> None:
    """Refuse to spread a model where that cannot be done."""
    if config.fsdp == "none":
        return
    if world_size() == 1:
        raise InputError(f"`fsdp: {config.fsdp}` spreads the model over processes, and this is one; use `torchrun`.")
    if config.quantization_bit is not None:
        raise InputError(f"`fsdp: {config.fsdp}` does not go with `quantization_bit`: packed weights cannot be cut.")
    if config.fsdp == "base" and config.finetuning_type == "full":
        raise InputError(
            "`fsdp: base` spreads what is frozen, and `finetuning_type: full` freezes nothing; use `full`."
        )
