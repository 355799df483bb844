"""Optimizers by their Hugging Face names: torch, transformers, and 8-bit and paged ones of bitsandbytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mtl_opt.errors import InputError


@dataclass(frozen=True)
class OptimizerSettings:
    """The settings shared by the optimizers.

    Attributes:
        learning_rate: Peak learning rate.
        weight_decay: Weight decay, decoupled where the method's is.
        betas: Decay of the averages of gradients and of their squares.
        epsilon: Added to the denominator.
    """

    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    epsilon: float

    @property
    def plain(self) -> dict[str, Any]:
        """Arguments that every optimizer takes."""
        return {"lr": self.learning_rate, "weight_decay": self.weight_decay}

    @property
    def adam(self) -> dict[str, Any]:
        """Arguments of Adam and its relatives."""
        return {**self.plain, "betas": self.betas, "eps": self.epsilon}

    @property
    def lion(self) -> dict[str, Any]:
        """Arguments of Lion, which has no denominator."""
        return {**self.plain, "betas": self.betas}


Builder = Callable[[Any, OptimizerSettings], Optimizer]


def _adafactor(parameters: Sequence[nn.Parameter], settings: OptimizerSettings) -> Optimizer:
    """Build Adafactor with an external learning rate, as Hugging Face's trainer does."""
    from transformers.optimization import Adafactor

    return Adafactor(parameters, scale_parameter=False, relative_step=False, **settings.plain)


def _bnb(cls: str, kind: str = "adam") -> Builder:
    """Return a builder for a bitsandbytes optimizer that imports the package on first use."""

    def build(parameters: Sequence[nn.Parameter], settings: OptimizerSettings) -> Optimizer:
        if find_spec("bitsandbytes") is None:
            raise InputError(
                f"`optim` needs {cls} of the package bitsandbytes, which is not installed (`pip install bitsandbytes`)."
            )
        from bitsandbytes import optim

        # Paging moves state between GPU and main memory: for parameters on the CPU the plain class is the same.
        name = cls.removeprefix("Paged") if _on_cpu(parameters) else cls
        return getattr(optim, name)(parameters, **getattr(settings, kind))

    return build


def _on_cpu(parameters: Sequence[Any]) -> bool:
    """Return whether all parameters, or those of all groups, are on the CPU."""
    flat = (p for group in parameters for p in (group["params"] if isinstance(group, dict) else [group]))
    return all(p.device.type == "cpu" for p in flat)


OPTIMIZERS: dict[str, Builder] = {
    "adamw_torch": lambda p, s: torch.optim.AdamW(p, **s.adam),
    "adamw_torch_fused": lambda p, s: torch.optim.AdamW(p, fused=True, **s.adam),
    "sgd": lambda p, s: torch.optim.SGD(p, **s.plain),
    "rmsprop": lambda p, s: torch.optim.RMSprop(p, eps=s.epsilon, **s.plain),
    "adagrad": lambda p, s: torch.optim.Adagrad(p, **s.plain),
    "adafactor": _adafactor,
    "adamw_bnb_8bit": _bnb("AdamW8bit"),
    "adamw_8bit": _bnb("AdamW8bit"),
    "paged_adamw_8bit": _bnb("PagedAdamW8bit"),
    "paged_adamw_32bit": _bnb("PagedAdamW"),
    "lion_32bit": _bnb("Lion", "lion"),
    "lion_8bit": _bnb("Lion8bit", "lion"),
    "paged_lion_32bit": _bnb("PagedLion", "lion"),
    "paged_lion_8bit": _bnb("PagedLion8bit", "lion"),
    "rmsprop_bnb_8bit": _bnb("RMSprop8bit", "plain"),
}
"""Builders by name; bitsandbytes keeps tensors of fewer than 4096 numbers in 32 bits."""

STATE_BYTES = {
    "adamw_torch": 8.0, "adamw_torch_fused": 8.0, "sgd": 0.0, "rmsprop": 4.0, "adagrad": 4.0, "adafactor": 0.0,
    "adamw_bnb_8bit": 2.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 2.0, "paged_adamw_32bit": 8.0,
    "lion_32bit": 4.0, "lion_8bit": 1.0, "paged_lion_32bit": 4.0, "paged_lion_8bit": 1.0, "rmsprop_bnb_8bit": 1.0,
}  # fmt: skip
"""Bytes of state per float32 parameter; Adafactor keeps two vectors per matrix, next to nothing."""


def build_optimizer(
    name: str,
    parameters: Sequence[nn.Parameter] | Sequence[dict[str, Any]],
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> Optimizer:
    """Build the named optimizer."""
    return OPTIMIZERS[name](parameters, OptimizerSettings(learning_rate, weight_decay, betas, epsilon))
