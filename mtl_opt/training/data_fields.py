"""How the keys of the configuration that name data are checked."""

from typing import Any

from mtl_opt.checks import mapping, number
from mtl_opt.data import check_entry
from mtl_opt.errors import InputError


def task_table(key: str, value: Any) -> dict[str, Any]:
    """Check the entries under `tasks`."""
    tasks = {name: mapping(f"{key}.{name}", entry) for name, entry in mapping(key, value).items()}
    if not tasks:
        raise InputError(f"`{key}` must name at least one task.")
    checked = {name: check_entry(entry, f"{key}.{name}") for name, entry in tasks.items()}
    for name, entry in checked.items():
        if ("file" in entry or "file_name" in entry) == ("hf_hub_url" in entry):
            raise InputError(
                f"`{key}.{name}.file` must be a non-empty text, or `hf_hub_url`; one of the two is needed."
            )
    return checked


def shares(key: str, value: Any) -> dict[str, float]:
    """Check shares of tasks."""
    found = {task: number(0, 1)(f"{key}.{task}", share) for task, share in mapping(key, value).items()}
    if abs(sum(found.values()) - 1) > 1e-6:
        raise InputError(f"`{key}` must sum up to 1, got {sum(found.values()):.6g}.")
    return found
