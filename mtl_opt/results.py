"""The folder of a run: what is in it, and writing so that nothing half-written is ever found there."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError

RESULTS = "all_results.json"
CONFIG = "config.yaml"
LOG = "trainer_log.jsonl"
PREDICTIONS = "generated_predictions.jsonl"
CONFLICT = "conflict.jsonl"


def check_folder(folder: Path) -> None:
    """Refuse an `output_dir` that cannot be written to, before time is spent on what would go there."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:  # such as a name that is too long
        raise InputError(f"`output_dir`: `{folder}` cannot be used ({error.strerror}).") from error
    if not there.is_dir():
        raise InputError(f"`output_dir`: `{there}` is a file, not a folder.")
    if not os.access(there, os.W_OK | os.X_OK) and not (folder / RESULTS).exists():
        raise InputError(f"`output_dir`: `{there}` may not be written.")


def write_text(path: Path, content: str) -> None:
    """Write a file in one move: a reader finds the old content or the new, never a part."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"`output_dir`: `{path.parent}` cannot be written ({error.strerror}).") from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object in one move."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_results(folder: Path) -> dict[str, Any] | None:
    """Read the results of a finished run."""
    path = folder / RESULTS
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"`{path}` cannot be read ({error}).") from error


def holds_run(folder: Path) -> bool:
    """Tell whether a folder holds a run, finished or not."""
    known = (CONFIG, RESULTS, LOG, "results.jsonl", "adapter_config.json", "model.safetensors")
    return any((folder / name).exists() for name in known) or bool(checkpoints(folder))


def checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of a run."""
    found = [p for p in folder.glob("checkpoint-*") if p.is_dir() and p.name.split("-", 1)[1].isdecimal()]
    return sorted(found, key=lambda p: int(p.name.split("-", 1)[1]))
