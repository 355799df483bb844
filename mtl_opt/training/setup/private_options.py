"""A task's own dropout, weight decay and penalty: refused where nothing private to the task is there to act on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mtl_opt.data import TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.models import SHARING, LoraSettings, private_parameters

NAMES = ("dropout", "weight_decay", "penalty")


def has_private_options(settings: Mapping[str, TaskSettings]) -> bool:
    """Return whether any task has an option for what is private to it."""
    return any(getattr(one, name) is not None for one in settings.values() for name in NAMES)


def refuse_idle_options(model: Any, sharing: str, tasks: Sequence[str], settings: Mapping[str, TaskSettings]) -> None:
    """Refuse an option of a task that would change nothing in this model."""
    private = private_parameters(model)
    read = model.sharing.read if hasattr(model, "sharing") else frozenset()
    lora = hasattr(getattr(model, "backbone", model), "peft_config")
    alone = len(tasks) == 1 and sharing == "hard"  # then all that is trained belongs to the task
    for task in tasks:
        acts = {
            "dropout": "dropout" in read or (alone and lora),
            "weight_decay": bool(private.get(task)) or alone,
            "penalty": "penalty" in read,
        }
        for name in NAMES:
            value = getattr(settings[task], name)
            if value is not None and not acts[name]:
                raise InputError(f"`tasks.{task}.{name}: {value:g}` changes nothing: {_why(name, task, sharing)}")


def _why(name: str, task: str, sharing: str) -> str:
    """Say why an option changes nothing, and what would help."""
    if name == "penalty":
        able = " and ".join(f"`{one}`" for one, cls in SHARING.items() if cls.penalises)
        return f"`sharing: {sharing}` has no penalty; {able} have one."
    if name == "weight_decay":
        return (
            f"with `sharing: {sharing}` no parameter is private to `{task}`; choose another `sharing` (`mtl-opt list "
            "sharing`), or `weight_decay` for all."
        )
    return (
        f"with `sharing: {sharing}` no adapter is private to `{task}`; choose another `sharing` (`mtl-opt list "
        "sharing`), `lora_dropout` for all, or `dropout` of its head."
    )


def dropout_of_one(lora: LoraSettings | None, tasks: Sequence[str], settings: Mapping[str, Any]) -> LoraSettings | None:
    """Give the adapter of a task that is trained alone the task's own dropout."""
    own = settings[tasks[0]].dropout if len(tasks) == 1 and tasks[0] in settings else None
    return lora if lora is None or own is None else replace(lora, dropout=own)


def decay_of_one(tasks: Sequence[str], settings: Mapping[str, TaskSettings], usual: float) -> float:
    """Give all parameters of a task that is trained alone the task's own decay."""
    own = settings[tasks[0]].weight_decay if len(tasks) == 1 and tasks[0] in settings else None
    return usual if own is None else own
