"""The key `heads`: which tasks are answered by a head, of which type, with which options."""

from collections.abc import Mapping
from typing import Any

from mtl_opt.checks import Check, choice, mapping, number, whole
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.models import HEADS, LOSSES, POOLINGS, head_options, reads


def label_list(key: str, value: Any) -> list[str]:
    """Check a list of at least two distinct label names."""
    entries = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(entry, bool) for entry in entries):
        raise InputError(f"`{key}`: YAML reads yes, no, on, off, true and false as truth values; put labels in quotes.")
    names = [str(entry) for entry in entries]
    texts = all(isinstance(entry, str | int) and str(entry).strip() == str(entry) != "" for entry in entries)
    if not texts or len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"`{key}` must be at least two different names, got {value!r}.")
    return names


OPTIONS: dict[str, Check] = {
    "labels": label_list,
    "pooling": choice(*POOLINGS),
    "dropout": number(0, 1, below=True),
    "hidden": whole(0),
    "label_smoothing": number(0, 1, below=True),
    "loss": choice(*LOSSES),
    "rank": whole(0),
    "alpha": whole(1),
}
"""Options of heads and how their values are checked; which type has which, the constructors say."""


def head_table(key: str, value: Any) -> dict[str, Any]:
    """Check the type and options of every head under `heads`."""
    found = {}
    for task, entry in mapping(key, value).items():
        where = f"{key}.{task}"
        given = {name: option for name, option in mapping(where, entry).items() if option is not None}
        if "type" not in given:
            raise InputError(f"`{where}.type` is missing; allowed: {', '.join(HEADS)}.")
        if given["type"] not in HEADS:
            raise UnknownNameError(f"value of `{where}.type`:", given["type"], HEADS)
        allowed = head_options(given["type"])
        for name in given:
            if name != "type" and name not in allowed:
                raise UnknownNameError(f"key under `{where}` (type {given['type']}):", name, ["type", *allowed])
        checked = {name: OPTIONS[name](f"{where}.{name}", option) for name, option in given.items() if name != "type"}
        found[task] = {"type": given["type"], **checked}
    return found


def check_heads(config: Any) -> None:
    """Refuse settings that heads cannot be trained with."""
    if not config.heads:
        return
    for key, value, why in (
        ("packing", config.packing, "a head needs whole rows"),
        ("streaming", config.streaming, "the labels of a task are checked before training"),
        ("torch_compile", config.torch_compile, "which rows a head gets differs from step to step"),
        ("fsdp", config.fsdp != "none", "heads are kept whole in every process"),
    ):
        if value:
            raise InputError(f"`{key}` does not go with `heads`: {why}.")
    if config.tasks is not None:
        for task in config.heads:
            if task not in config.tasks:
                raise UnknownNameError("task under `heads`:", task, config.tasks)


def answer_kinds(heads: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Map the tasks answered by labels or numbers to what carries them: a row or its words."""
    found = {task: reads(head["type"]) for task, head in heads.items()}
    return {task: kind for task, kind in found.items() if kind != "text"}


def is_labelled(head: Mapping[str, Any] | None) -> bool:
    """Return whether a task is answered by labels or numbers, so that nothing is generated."""
    return head is not None and reads(head["type"]) != "text"
