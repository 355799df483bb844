"""What was trained, in files: as the way of sharing loads it again, and task by task in the form of peft."""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtl_opt.models import (
    MultiTaskModel,
    TaskProducts,
    folder_names,
    head_product,
    lora_matrices,
    products_of,
    save_heads,
    save_peft_folder,
    save_sharing,
)
from mtl_opt.results import write_json
from mtl_opt.training.config.keys import ModelKeys

logger = logging.getLogger(__name__)

ADAPTERS = "adapters"
TASKS = "tasks.json"
"""Maps tasks to folders: a task may have a name that no folder can have."""


def save_trained(keys: ModelKeys, model: Any, folder: Path, weights: Any) -> None:
    """Write what was trained: a peft adapter, a whole model, or the files of the way of sharing."""
    if keys.sharing == "hard":
        model.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
        return
    own = model.backbone if isinstance(model, MultiTaskModel) else model
    about = {
        "sharing": keys.sharing,
        "sharing_args": keys.sharing_args,
        "tasks": list(model.tasks),
        "task_options": {task: asdict(options) for task, options in own.task_options.items()},
        "base_model_name_or_path": keys.model_name_or_path,
        "lora_rank": keys.lora_rank,
        "lora_alpha": keys.lora_alpha or 2 * keys.lora_rank,
    }
    save_sharing(own, folder, about)
    if isinstance(model, MultiTaskModel):
        save_heads(model.heads.by_task(), folder)


def save_adapters(keys: ModelKeys, model: Any, output: Path) -> None:
    """Write `adapters/TASK/` for every task, where fixing the task leaves a LoRA; log where it does not."""
    if keys.sharing == "hard" or not hasattr(model, "tasks"):
        return
    shutil.rmtree(output / ADAPTERS, ignore_errors=True)
    found = task_products(model)
    if isinstance(found, str):
        logger.info("Saved in our own form only: %s, which peft cannot hold.", found)
        return
    partial = output / f"{ADAPTERS}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    write_adapters(partial, found, model, keys.model_name_or_path)
    os.replace(partial, output / ADAPTERS)


def write_adapters(
    folder: Path, products: dict[str, TaskProducts], model: Any, base_name: str, names: Sequence[str] | None = None
) -> dict[str, str]:
    """Write one peft folder per task and `tasks.json`; return the folders by task."""
    folders = {task: name for task, name in folder_names(list(products)).items() if names is None or task in names}
    for task, name in folders.items():
        save_peft_folder(folder / name, products[task], getattr(model, "base", model), base_name)
    write_json(folder / TASKS, folders)
    return folders


def task_products(model: Any, for_peft: bool = True) -> dict[str, TaskProducts] | str:
    """Collect what each task of a model adds to the base once the task is fixed, or why that is no adapter."""
    found: dict[str, TaskProducts] = {}
    for index, task in enumerate(model.tasks):
        products = products_of(model, index)
        if isinstance(products, str):
            return products
        if for_peft and products.output is not None:
            return "the last hidden state is multiplied before the output layer"
        if products.output is not None and hasattr(model, "heads"):
            return "the last hidden state is multiplied before the heads"
        if for_peft and not products.matrices:
            return "there is no adapter beside a linear layer"
        found[task] = products
    return found


def hard_products(model: Any, tasks: Sequence[str], for_peft: bool) -> dict[str, TaskProducts] | str:
    """Collect what each task adds to the base in a run with one shared adapter, or with none."""
    matrices = lora_matrices(model.backbone) if for_peft else {}
    if matrices is None:
        return "DoRA is no product of two matrices"
    return {task: TaskProducts(matrices, None, head_product(model, index)) for index, task in enumerate(tasks)}
