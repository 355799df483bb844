"""Which tokens of the rows under way are padding: adapters do not see the attention mask."""

from typing import Any

import torch
from torch import Tensor, nn


class Padding:
    """Remember the attention mask that a model is called with, also where heads call its stack of layers directly.

    Attributes:
        mask: 1 for tokens and 0 for padding; None where there is no mask `[batch, seq]`. A new tensor per call.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None

    def watch(self, model: nn.Module) -> None:
        """Look at every call of a model and of the model inside it that has no output layer."""
        inner: Any = getattr(model, "base_model", model)
        for module in (model, inner) if inner is not model else (model,):
            module.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:  # noqa: ARG002
        """Look at what a model is called with; masks of other shapes are made of the one that was seen before."""
        mask = options.get("attention_mask")
        if mask is None or (isinstance(mask, Tensor) and mask.dim() == 2):
            self.mask = mask

    def kept(self, shape: torch.Size) -> Tensor | None:
        """Say which tokens count."""
        return self.mask if self.mask is not None and self.mask.shape == shape else None
