"""Heads on disk: their weights as safetensors, and a JSON file that says what they are for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtl_opt.errors import InputError, first_line
from mtl_opt.models.heads.base import Head
from mtl_opt.models.heads.registry import head_type
from mtl_opt.results import HEADS_JSON, HEADS_SAFETENSORS


def save_heads(
    heads: Mapping[str, Head], folder: Path, weights: Mapping[str, Mapping[str, Tensor]] | None = None
) -> None:
    """Write heads; keys of the weights are `TASK/parameter`.

    Args:
        heads: The head of every task.
        folder: The folder to write `heads.safetensors` and `heads.json` into; made if it is missing.
        weights: State of each head by task, gathered from all processes; None: that of `heads`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    states = {task: head.state_dict() for task, head in heads.items()} if weights is None else weights
    named = {
        f"{task}/{name}": value.detach().cpu().contiguous()
        for task, state in states.items()
        for name, value in state.items()
    }
    save_file(named, folder / HEADS_SAFETENSORS)
    about = {"tasks": describe(heads)}
    (folder / HEADS_JSON).write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def save_head(task: str, head: Head, folder: Path) -> None:
    """Write the head of one task beside a model that was exported for it.

    Args:
        task: Name of the task.
        head: Its head.
        folder: The folder of the exported model.
    """
    save_heads({task: head}, folder)


def describe(heads: Mapping[str, Head]) -> dict[str, dict[str, Any]]:
    """Collect the type and the options of every head."""
    return {task: {"type": head_type(head), **head.describe()} for task, head in heads.items()}


def read_specs(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the type and the options of every saved head, by task."""
    try:
        return dict(json.loads((folder / HEADS_JSON).read_text(encoding="utf-8"))["tasks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"No heads could be loaded from `{folder}`: `{HEADS_JSON}` is missing or damaged.") from error


def load_heads(heads: Mapping[str, Head], folder: Path) -> None:
    """Load saved weights into heads of the same tasks, types and shapes."""
    refuse_other_heads(read_specs(folder), describe(heads), folder)
    try:
        weights = load_file(folder / HEADS_SAFETENSORS)
        for task, head in heads.items():
            prefix = f"{task}/"
            head.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"No heads could be loaded from `{folder}` ({first_line(error)}).") from error


def refuse_other_heads(saved: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise if saved heads differ in tasks, types or shapes from those of the run."""
    if set(saved) != set(wanted):
        raise InputError(f"The heads in `{folder}` are for {_task_list(saved)}, and the run has {_task_list(wanted)}.")
    for task, own in wanted.items():
        for key in ("type", "labels", "pooling", "hidden", "rank", "alpha"):
            before, now = saved[task].get(key), own.get(key)
            if before != now:
                raise InputError(
                    f"The head of task `{task}` in `{folder}` was made for {key} {_option_text(before)}, and the "
                    f"run has {_option_text(now)}."
                )


def _task_list(tasks: Sequence[str] | Mapping[str, Any]) -> str:
    """Format the names of tasks for a message."""
    return f"task{'s' * (len(tasks) != 1)} {', '.join(f'`{task}`' for task in tasks) or 'none'}"


def _option_text(value: object) -> str:
    """Format the value of an option for a message."""
    return ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"
