"""How a model is run: quantised by bitsandbytes, checkpointed, compiled by torch, or in evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from mtl_opt.errors import InputError

COMPILERS = ("inductor", "aot_eager", "eager", "cudagraphs")
"""Backends of torch.compile; the middle two need no C++ compiler and save no time."""


@dataclass(frozen=True)
class QuantizationSettings:
    """Storage format of the frozen base.

    Attributes:
        bit: 4 or 8.
        kind: Number format of 4 bits: "nf4" or "fp4".
        double: Whether the scales of 4-bit blocks are quantised too.
    """

    bit: Literal[4, 8]
    kind: Literal["nf4", "fp4"] = "nf4"
    double: bool = True


def quantized(settings: QuantizationSettings, dtype: torch.dtype) -> dict[str, Any]:
    """Build the arguments of `from_pretrained` that quantise the weights while they are read."""
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"`quantization_bit: {settings.bit}` needs the package bitsandbytes, which is not installed "
            "(`pip install bitsandbytes`)."
        )
    if settings.bit == 8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=settings.kind,
            bnb_4bit_use_double_quant=settings.double,
            bnb_4bit_compute_dtype=dtype,
        )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}


def keep_weights(model: nn.Module) -> None:
    """Keep bitsandbytes from storing 4-bit weights anew at the first evaluation on a CPU with AVX-512.

    It rounds their scales to bfloat16 on the way and does not undo it for training: the base that is trained on would
    be another than the one that was loaded.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - mypy knows modules and tensors only


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch a model to evaluation mode inside the context, and restore its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def enable_checkpointing(model: Any) -> None:
    """Recompute each layer's activations in the backward pass instead of storing them.

    Non-reentrant: the other kind cannot be differentiated per task. The embedding's output is made to require a
    gradient, so that a model whose first layers are frozen is checkpointed too.

    Args:
        model: A model of transformers, or a peft model around one.

    Raises:
        InputError: If the model cannot.
    """
    # transformers renamed it: 5.23 warns about the old name, 5.0 has no other.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"`gradient_checkpointing`: {str(error).rstrip('.')}.") from error
    model.enable_input_require_grads()


def compile_model(model: nn.Module, backend: str) -> None:
    """Compile the model's forward in place: parameter names and saved files stay the same.

    Args:
        model: The model, with its adapters.
        backend: One of `COMPILERS`.
    """
    from torch._functorch import config  # torch's own error message names this switch; there is no public one

    config.donated_buffer = False  # torch asks for it where a backward keeps the graph for the next task's
    model.compile(backend=backend)
