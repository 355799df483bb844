"""Adapters of a fixed task: one low-rank product per layer, and merging it into the base weights."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mtl_opt.models.sharing.parts.layers import AdaptedLinear

FORBIDDEN = frozenset('/\\:*?"<>|')
"""Characters that a folder's name may not have on one of the usual file systems."""

LONGEST = 120
"""Most bytes of a folder's name that come from the task."""


@dataclass(frozen=True)
class TaskProducts:
    """What a model adds to its base for the rows of one task.

    Attributes:
        matrices: `A` `[rank, in]` and the scaled `B` `[out, rank]` of every adapted layer, by its path in the base.
        output: What the last hidden state is multiplied with before the output layer `[dim, dim]`; None for nothing.
        head: `A` `[rank, dim]` and the scaled `B` `[vocabulary, rank]` of the task's own adapter on the output layer;
            None for nothing.
    """

    matrices: dict[str, tuple[Tensor, Tensor]]
    output: Tensor | None = None
    head: tuple[Tensor, Tensor] | None = None


def products_of(model: nn.Module, task: int) -> TaskProducts | str:
    """Fix the task of a model and collect what it adds to its base.

    A module says so itself: an adapter by `lora_of(task)`; one that multiplies the last hidden state (`M h`, before the
    output layer) by `output_matrix_of(task)`; one that only helps training by `training_only = True`; a head that adds
    to the output layer by `output_lora()`. Other heads (`model.heads`) are kept beside the model, never merged.

    Args:
        model: A model with a way of sharing in it.
        task: Index of the task.

    Returns:
        The products, copied to the CPU in float32; a sentence where something trained is no product for a fixed task.
    """
    base = getattr(model, "base", model)
    matrices: dict[str, tuple[Tensor, Tensor]] = {}
    output: Tensor | None = None
    covered: set[int] = set()
    for path, module in base.named_modules():
        if isinstance(module, AdaptedLinear):
            adapter: Any = module.adapter
            found = adapter.lora_of(task) if hasattr(adapter, "lora_of") else None
            if found is None:
                return f"`{type(adapter).__name__}` at `{path}` depends on more than the task, so it is no product"
            matrices[path] = (float32_copy(found[0]), float32_copy(found[1]))
            covered |= {id(p) for p in adapter.parameters()}
    for module in model.modules():
        of_output = getattr(module, "output_matrix_of", None)
        if callable(of_output):
            found_matrix = of_output(task)
            matrix = None if found_matrix is None else float32_copy(found_matrix)
            output = matrix if output is None or matrix is None else matrix @ output
        if callable(of_output) or getattr(module, "training_only", False):
            covered |= {id(p) for p in module.parameters()}
    covered |= {id(p) for head in getattr(model, "heads", ()) for p in head.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in covered:
            return f"`{name}` is trained and is no adapter beside a linear layer"
    return TaskProducts(matrices, output, head_product(model, task))


def head_product(model: nn.Module, task: int) -> tuple[Tensor, Tensor] | None:
    """Return the factors of what a task's head adds to the weight of the output layer.

    Args:
        model: A model, with heads or without.
        task: Index of the task.

    Returns:
        `A` `[rank, dim]` and the scaled `B` `[vocabulary, rank]`, copied to the CPU in float32; None for nothing.
    """
    heads: Any = getattr(model, "heads", None)
    adapter_of = None if heads is None else getattr(heads[task], "output_lora", None)
    found = None if adapter_of is None else adapter_of()
    return None if found is None else (float32_copy(found[0]), float32_copy(found[1]))


def float32_copy(value: Tensor) -> Tensor:
    """Copy a matrix to the CPU in float32."""
    return value.detach().to("cpu", torch.float32).clone()


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
    """Merge the rotation and the head's adapter into the output weight, and untie it from the embedding."""
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


def folder_names(tasks: Sequence[str]) -> dict[str, str]:
    """Turn the names of tasks into names of folders, all different on any file system.

    Args:
        tasks: Names of the tasks.

    Returns:
        Folder by task: what may not stand in one becomes `_`; of equal ones the later get a number.

    Examples:
        >>> folder_names(["qa", "摘要", "a/b", "a_b", "..", "QA"])
        {'qa': 'qa', '摘要': '摘要', 'a/b': 'a_b', 'a_b': 'a_b_2', '..': '_', 'QA': 'QA_2'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for task in tasks:
        text = unicodedata.normalize("NFC", task)
        text = "".join("_" if c in FORBIDDEN or unicodedata.category(c).startswith("C") else c for c in text)
        text = text.strip(". ").encode()[:LONGEST].decode(errors="ignore").strip(". ") or "_"
        name, number = text, 1
        while name.casefold() in taken:
            number += 1
            name = f"{text}_{number}"
        taken.add(name.casefold())
        found[task] = name
    return found
