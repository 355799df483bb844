"""What a configuration says of the model, in the words of the box `models`."""

from mtl_opt.models import LoraSettings, QuantizationSettings
from mtl_opt.training.config import TrainConfig


def lora_settings(config: TrainConfig) -> LoraSettings | None:
    """Read how adapters are put into the model.

    Args:
        config: The configuration.

    Returns:
        The settings; None for full fine-tuning.
    """
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


def quantization_settings(config: TrainConfig) -> QuantizationSettings | None:
    """Read how the base's weights are stored.

    Args:
        config: The configuration.

    Returns:
        The settings; None where they are not quantised.
    """
    if config.quantization_bit is None:
        return None
    found = QuantizationSettings(4 if config.quantization_bit == 4 else 8, double=config.double_quantization)
    return found if config.quantization_type == "nf4" else QuantizationSettings(found.bit, "fp4", found.double)


def engine_of(config: TrainConfig) -> tuple[str, str]:
    """Choose the gradient engine to ask for.

    Args:
        config: The configuration.

    Returns:
        Its name, and why it is another than the configuration says; empty where it is the same.
    """
    if config.torch_compile and config.gradient_engine == "auto":
        return "per_task", "the model is compiled, and compiled code does not see the layers that one_pass replaces"
    return config.gradient_engine, ""
