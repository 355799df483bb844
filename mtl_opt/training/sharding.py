"""FSDP2: parameters sharded over the processes, and gathered for saving."""

from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(model: nn.Module, what: str) -> None:
    """Spread a model over the processes, layer by layer."""
    kept = {p for p in model.parameters() if p.requires_grad} if what == "base" else set()
    for layer in _layers(model):
        fully_shard(layer, ignored_params=kept)
    fully_shard(model, ignored_params=kept)


def _layers(model: nn.Module) -> list[nn.Module]:
    """Find the blocks that the architecture declares indivisible."""
    names = {name for module in model.modules() for name in (getattr(module, "_no_split_modules", None) or ())}
    return [module for module in model.modules() if type(module).__name__ in names]


def is_sharded(model: nn.Module) -> bool:
    """Return whether trained parameters are spread over the processes."""
    return any(p.requires_grad and hasattr(p, "to_local") for p in model.parameters())


def whole_weights(model: nn.Module) -> dict[str, Any] | None:
    """Gather the weights for `save_pretrained`; every process must call it."""
    if not is_sharded(model):
        return None
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tied = every - {name for name, _ in model.named_parameters()}  # gathered apart, they would be written twice
    return {name: value for name, value in get_model_state_dict(model, options=WHOLE).items() if name not in tied}


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Gather the state of an optimizer; every process must call it."""
    return get_optimizer_state_dict(model, optimizer, options=WHOLE) if is_sharded(model) else optimizer.state_dict()


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load into every process its part of a gathered state."""
    if is_sharded(model):
        set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))
    else:
        optimizer.load_state_dict(state)
