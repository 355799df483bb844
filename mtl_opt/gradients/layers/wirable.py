"""Layers whose weight gradient engine `one_pass` can split by task, and the reason why others cannot be."""

import inspect
from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

PLAIN = (nn.LayerNorm, nn.Embedding, nn.RMSNorm)
"""Layers that process every token on its own."""

ROW_WISE = (_ConvNd, nn.GroupNorm, nn.PReLU)
"""Layers that process every row on its own, but mix positions within a row."""


def is_conv1d(module: nn.Module) -> bool:
    """Recognise the linear layer of GPT-2, whose weight is `[in, out]`, by name: its library is not imported."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and not isinstance(module, nn.Linear)


def is_known(module: nn.Module) -> bool:
    """Return whether a layer is known to process every row on its own: its first run needs no check."""
    own = type(module).__module__.startswith("torch.nn.")
    return (own and isinstance(module, (nn.Linear, *PLAIN, *ROW_WISE))) or is_conv1d(module)


def mixes_tokens(module: nn.Module) -> bool:
    """Return whether a layer may mix the tokens of a sequence."""
    return not (isinstance(module, (nn.Linear, *PLAIN)) or _is_norm(module) or is_conv1d(module))


def _is_norm(module: nn.Module) -> bool:
    """Recognise the norms of all libraries by their name."""
    return type(module).__name__.endswith(("RMSNorm", "LayerNorm"))


def why_not(module: nn.Module, shared: Collection[str]) -> str:
    """Return the reason why a layer cannot be wired; empty where it can."""
    trainable = {name for name, p in module.named_parameters(recurse=False) if p.requires_grad}
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance"
    if type(module).__name__.startswith("Dora"):
        return "DoRA normalises the adapted weight itself, which no row owns"
    if trainable != set(shared):
        return "it holds private parameters beside shared ones"
    if not isinstance(module, nn.Linear) and _derives_weights(module, trainable):
        return "a hook derives its weights before its forward (pruning, spectral norm, weight norm)"
    if isinstance(module, nn.Linear):
        plain = type(module).forward is nn.Linear.forward and trainable <= {"weight", "bias"}
        return "" if plain else "it changes the forward or the parameters of a linear layer"
    if any(True for _ in module.children()):
        return "it holds parameters beside other layers"
    return _why_not_leaf(module)


def _derives_weights(module: nn.Module, trainable: Collection[str]) -> bool:
    """Return whether the layer computes with other tensors than its parameters, which a hook makes of them."""
    hooks = module._forward_pre_hooks.values()
    made = any(type(hook).__module__.startswith("torch.nn.utils.") for hook in hooks)
    return made or (isinstance(module, (*PLAIN, *ROW_WISE)) and not set(trainable) <= {"weight", "bias"})


def _why_not_leaf(module: nn.Module) -> str:
    """Return the reason for a layer that is neither linear nor has children; empty where it can be wired."""
    if isinstance(module, _BatchNorm):
        return "batch norm mixes the rows of all tasks"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return "a recurrent layer has more than one input and output"
    if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq):
        return "its gradient is no sum over rows (`max_norm`, `scale_grad_by_freq`)"
    if isinstance(module, nn.Embedding) and module.sparse:
        return "its gradient is sparse"
    if isinstance(module, nn.EmbeddingBag | nn.Bilinear):
        return "its forward takes more than one input"
    if isinstance(module, _ConvNd):  # a transposed one takes a size beside its input
        return ""
    inputs = list(inspect.signature(module.forward).parameters.values())[1:]
    if any(p.default is None or p.default is p.empty for p in inputs):  # None stands for a tensor more often than not
        return "its forward takes more than one input"
    return ""
