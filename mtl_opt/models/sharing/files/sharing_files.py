"""Shared and private parameters on disk: one safetensors file and a json that says what they are of."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtl_opt.errors import InputError
from mtl_opt.results import SHARING_JSON, SHARING_SAFETENSORS


def sharing_state(model: nn.Module) -> dict[str, Tensor]:
    """Collect what a way of sharing has put into a model: everything trainable, and the buffers to be saved."""
    found = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    for path, module in model.named_modules():
        found |= {f"{path}.{name}": getattr(module, name) for name in getattr(module, "saved_buffers", ())}
    return found


def save_sharing(model: nn.Module, folder: Path, about: Mapping[str, Any]) -> None:
    """Write what a way of sharing has put into a model.

    Args:
        model: The model.
        folder: Where to.
        about: What it is of, such as `sharing`, `sharing_args`, `tasks`, `base_model_name_or_path`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous().cpu() for name, value in sharing_state(model).items()}, folder / SHARING_SAFETENSORS
    )
    text = json.dumps(about, ensure_ascii=False, indent=2) + "\n"
    (folder / SHARING_JSON).write_text(text, encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any]:
    """Read what a saved way of sharing is of.

    Args:
        folder: Folder of a run or checkpoint.

    Returns:
        What `save_sharing` was given.

    Raises:
        InputError: If there is none.
    """
    try:
        return json.loads((folder / SHARING_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"No shared and private parameters could be loaded from `{folder}` ({error}).") from error


def load_sharing(model: nn.Module, folder: Path, name: str, tasks: Sequence[str]) -> None:
    """Load into a model what `save_sharing` wrote of one built alike.

    Args:
        model: The model, with the way of sharing in it.
        folder: Where from.
        name: Name of the way of sharing.
        tasks: Names of the tasks.

    Raises:
        InputError: If the files are missing, torn, of another way of sharing or of other tasks.
    """
    about = read_about(folder)
    if about.get("sharing") != name:
        raise InputError(f"`{folder}` was saved with `sharing: {about.get('sharing')}`, not `{name}`.")
    if about.get("tasks") != list(tasks):
        raise InputError(f"`{folder}` was saved for tasks {about.get('tasks')}, these are {list(tasks)}.")
    try:
        state = load_file(folder / SHARING_SAFETENSORS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"No shared and private parameters could be loaded from `{folder}` ({error}).") from error
    own = sharing_state(model)
    wrong = [n for n in own.keys() | state.keys() if n not in own or n not in state or own[n].shape != state[n].shape]
    if wrong:
        raise InputError(f"`{folder}` does not fit the model: `{min(wrong)}` is missing or has another shape.")
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(state[key])
