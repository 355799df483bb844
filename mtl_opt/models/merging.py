"""Adapters added into the weights of a base model, so that a plain model is left."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mtl_opt.models.sharing.files.products import TaskProducts


@torch.no_grad()
def merge(model: Any, products: TaskProducts, dtype: torch.dtype) -> Any:
    """Add the products of one task to the weights of a base model; sums are taken in float32.

    Args:
        model: The base, without adapters, on the CPU; changed in place.
        products: What is added.
        dtype: Number format that the weights end up in.

    Returns:
        The same model.
    """
    for path, (a, b) in products.matrices.items():
        layer = model.get_submodule(path)
        update = b @ a  # [out, in]
        update = update.T if isinstance(layer, Conv1D) else update
        layer.weight = _sum(layer.weight, update, dtype)
    if products.output is not None or products.head is not None:
        _merge_output(model, products, dtype)
    return model.to(dtype)


def _sum(weight: Tensor, update: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """Add in float32, then round once."""
    return nn.Parameter((weight.float() + update).to(dtype), requires_grad=weight.requires_grad)


def _merge_output(model: Any, products: TaskProducts, dtype: torch.dtype) -> None:
    """Put what stands at the output layer into its weight, and untie it from the embedding."""
    output = model.get_output_embeddings()
    if output.weight is model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False
    weight = output.weight.float()
    if products.head is not None:
        a, b = products.head
        weight = weight + b @ a
    if products.output is not None:
        weight = weight @ products.output
    output.weight = nn.Parameter(weight.to(dtype))
