"""Keys of a configuration → the settings that the model is loaded, adapted, run and measured with."""

from dataclasses import dataclass
from typing import Any

import torch

from mtl_opt.combiners import Combiner
from mtl_opt.errors import InputError
from mtl_opt.models import LoraSettings, QuantizationSettings, check_packing, check_routing, enable_checkpointing
from mtl_opt.training.config.keys import ModelKeys, OptimizationKeys
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.processes import world_size


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is measured.

    Attributes:
        batch_size: Rows of a batch.
        max_new_tokens: Longest generated answer.
        precision: Number format that the forward is autocast to; None: no autocast.
    """

    batch_size: int
    max_new_tokens: int
    precision: torch.dtype | None


def evaluation_settings(config: TrainConfig) -> EvaluationSettings:
    """Read how a model is measured."""
    return EvaluationSettings(config.per_device_eval_batch_size, config.max_new_tokens, autocast_dtype(config))


def autocast_dtype(keys: OptimizationKeys) -> torch.dtype | None:
    """Read the number format that the forward is autocast to; None for no autocast."""
    return torch.bfloat16 if keys.bf16 else torch.float16 if keys.fp16 else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Open an autocast context that does nothing where no number format is given."""
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def adapter_settings(config: ModelKeys) -> LoraSettings | None:
    """Read the settings of the adapters; None where the whole model is trained."""
    if config.finetuning_type == "full":
        return None
    return LoraSettings(
        rank=config.lora_rank,
        alpha=config.lora_alpha or 2 * config.lora_rank,
        dropout=config.lora_dropout,
        target="all" if config.lora_target == ["all"] else tuple(config.lora_target),
        rslora=config.use_rslora,
        dora=config.use_dora,
        start=config.adapter_name_or_path if config.sharing == "hard" else None,
    )


def base_dtype(config: TrainConfig) -> torch.dtype:
    """Choose the number format of the base's weights: frozen ones may be as short as the forward's."""
    return (autocast_dtype(config) if config.finetuning_type == "lora" else None) or torch.float32


def quantization_settings(config: ModelKeys) -> QuantizationSettings | None:
    """Read how the base's weights are quantised; None where they are not."""
    if config.quantization_bit is None:
        return None
    found = QuantizationSettings(4 if config.quantization_bit == 4 else 8, double=config.double_quantization)
    return found if config.quantization_type == "nf4" else QuantizationSettings(found.bit, "fp4", found.double)


def engine_of(config: TrainConfig) -> tuple[str, str]:
    """Choose the gradient engine to ask for, with the reason where it is not the configured one."""
    if config.torch_compile and config.gradient_engine == "auto":
        return "per_task", "the model is compiled, and compiled code does not see the layers that one_pass replaces"
    return config.gradient_engine, ""


def fit_model(config: TrainConfig, model: Any) -> None:
    """Prepare a loaded model for packing, checkpointing and spreading, or raise if it cannot be trained so."""
    _check_fsdp(config)
    if config.packing:
        check_packing(model)
    if config.gradient_checkpointing:
        enable_checkpointing(model)
    with autocast(next(model.parameters()).device, autocast_dtype(config)):
        check_routing(model, config.sharing)


def check_packed_rows(name: str, combiner: Combiner) -> None:
    """Refuse packed rows for a combiner that needs each task's rows one by one."""
    if combiner.requires == "halves":
        raise InputError(
            f"`packing: true` does not go with `combiner: {name}`, which deals whole rows to two halves; "
            "use `packing: false`."
        )


def _check_fsdp(config: TrainConfig) -> None:
    """Refuse to spread a model that cannot be spread."""
    if config.fsdp == "none":
        return
    if world_size() == 1:
        raise InputError(f"`fsdp: {config.fsdp}` spreads the model over processes, and this is one; use `torchrun`.")
    if config.exhaustion == "once":
        raise InputError(
            f"`fsdp: {config.fsdp}` does not go with `exhaustion: once`, whose last rows some processes lack."
        )
    if config.quantization_bit is not None:
        raise InputError(f"`fsdp: {config.fsdp}` does not go with `quantization_bit`: packed weights cannot be cut.")
    if config.fsdp == "base" and config.finetuning_type == "full":
        raise InputError(
            "`fsdp: base` spreads what is frozen, and `finetuning_type: full` freezes nothing; use `full`."
        )
