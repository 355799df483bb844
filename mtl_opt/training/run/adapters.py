"""The adapters of a finished run, task by task in peft's form, beside what the way of sharing needs itself."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtl_opt.models import TaskProducts, folder_names, head_product, lora_matrices, products_of, save_peft_folder
from mtl_opt.results import write_json
from mtl_opt.training.config.run_config import TrainConfig

logger = logging.getLogger(__name__)

ADAPTERS = "adapters"
TASKS = "tasks.json"
"""Says which folder belongs to which task: a task may have a name that no folder can have."""


def save_adapters(config: TrainConfig, model: Any, output: Path) -> None:
    """Write `adapters/TASK/` for every task, where fixing the task leaves a LoRA; the log says where it does not."""
    if config.sharing == "hard" or not hasattr(model, "tasks"):
        return
    shutil.rmtree(output / ADAPTERS, ignore_errors=True)
    found = task_products(model)
    if isinstance(found, str):
        logger.info("Saved in our own form only: %s, which peft cannot hold.", found)
        return
    partial = output / f"{ADAPTERS}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    write_adapters(partial, found, model, config.model_name_or_path)
    os.replace(partial, output / ADAPTERS)


def write_adapters(
    folder: Path, products: dict[str, TaskProducts], model: Any, base_name: str, names: Sequence[str] | None = None
) -> dict[str, str]:
    """Write one peft folder per task and `tasks.json`."""
    folders = {task: name for task, name in folder_names(list(products)).items() if names is None or task in names}
    for task, name in folders.items():
        save_peft_folder(folder / name, products[task], getattr(model, "base", model), base_name)
    write_json(folder / TASKS, folders)
    return folders


def task_products(model: Any, for_peft: bool = True) -> dict[str, TaskProducts] | str:
    """Fix each task of a model in turn."""
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
    """Say what each task of a run with one adapter, or with none, adds."""
    matrices = lora_matrices(model.backbone) if for_peft else {}
    if matrices is None:
        return "DoRA is no product of two matrices"
    return {task: TaskProducts(matrices, None, head_product(model, index)) for index, task in enumerate(tasks)}
