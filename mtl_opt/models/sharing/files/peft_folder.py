"""Adapters of one task in peft's own form: what plain `PeftModel.from_pretrained` loads."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mtl_opt.models.lora import task_type
from mtl_opt.models.sharing.files.products import TaskProducts, float32_copy
from mtl_opt.models.sharing.parts.layers import AdaptedLinear

WEIGHTS = "adapter_model.safetensors"


def save_peft_folder(folder: Path, products: TaskProducts, model: Any, base_name: str) -> None:
    """Write the adapters of one task as peft does.

    Every `B` has its scale in it, so peft's `alpha / rank` is 1 for every layer, whatever its rank.

    Args:
        folder: Where to.
        products: What is written; without an output matrix.
        model: The model, to see how its layers store their weights.
        base_name: Name or folder of the base model, for whoever loads the adapters.

    Raises:
        ValueError: If there is an output matrix, which no adapter of peft holds, or no adapter.
    """
    if products.output is not None or not (products.matrices or products.head):
        raise ValueError("A matrix before the output layer has full rank; no LoRA holds it.")
    matrices = dict(products.matrices)
    if products.head is not None:
        matrices[_output_path(model)] = products.head
    ranks = {path: len(a) for path, (a, _) in matrices.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    other = {re.escape(path): rank for path, rank in ranks.items() if rank != usual}
    config = LoraConfig(
        task_type=task_type(model),
        r=usual,
        lora_alpha=usual,
        lora_dropout=0.0,
        target_modules=sorted(ranks),
        rank_pattern=other,
        alpha_pattern=dict(other),
        fan_in_fan_out=has_conv1d(model),
        base_model_name_or_path=base_name,
        inference_mode=True,
    )
    state = {}
    for path, (a, b) in matrices.items():
        state[f"base_model.model.{path}.lora_A.weight"] = a.contiguous()
        state[f"base_model.model.{path}.lora_B.weight"] = b.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(folder)


def lora_matrices(model: Any) -> dict[str, tuple[Tensor, Tensor]] | None:
    """Read the one adapter of a peft model.

    Args:
        model: A `PeftModel` with LoRA.

    Returns:
        `A` `[rank, in]` and the scaled `B` `[out, rank]` of every layer, by its path in the base, copied to the CPU in
        float32; None with DoRA, which is no product.
    """
    found = {}
    for path, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            if module.lora_magnitude_vector:
                return None
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight * module.scaling["default"]
            found[path] = (float32_copy(a), float32_copy(b))
    return found


def _output_path(model: Any) -> str:
    """Name the output layer."""
    output = model.get_output_embeddings()
    return next(path for path, module in model.named_modules() if module is output)


def has_conv1d(model: nn.Module) -> bool:
    """Return whether adapted layers store their weights as `[in, out]`, as GPT-2 does."""
    return any(isinstance(m.base_layer, Conv1D) for m in model.modules() if isinstance(m, AdaptedLinear))
