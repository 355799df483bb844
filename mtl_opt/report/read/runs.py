"""Lines of `results.jsonl` → runs per method: and which of them may be pooled."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeGuard

from mtl_opt.errors import InputError
from mtl_opt.results import SINGLE, method_of, role_of

DIRECTIONS = {"exact_match": True, "loss": False}
"""Metrics of lines written before they named their directions: whether higher is better."""


@dataclass
class Runs:
    """Hold all runs of one method.

    Attributes:
        method: What tells it from the others.
        metrics: Per seed, each `eval_{task}_{metric}`; NaN where it is not finite.
        lines: Per seed, the lines: one, or one per task for the baselines.
    """

    method: str
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    lines: dict[int, list[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def first(self) -> Mapping[str, Any]:
        """First line, for what is the same in all."""
        return next(iter(self.lines.values()))[0]


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value can be averaged."""
    return isinstance(value, (int, float)) and isfinite(value)


def collect(results: Iterable[Mapping[str, Any]]) -> dict[str, Runs]:
    """Group the runs by method; the single-task runs of one seed become one. A repeated run counts once."""
    found: dict[str, Runs] = {}
    for line in results:
        if role_of(line) == "search":
            continue
        runs = found.setdefault(method_of(line), Runs(method_of(line)))
        seed = int(line["seed"])
        values = {k: float(v) if is_number(v) else float("nan") for k, v in line["metrics"].items()}
        runs.metrics.setdefault(seed, {}).update(values)
        others = [old for old in runs.lines.get(seed, []) if old.get("task") != line.get("task")]
        runs.lines[seed] = [*others, line]
    if SINGLE in found:
        found[SINGLE] = found.pop(SINGLE)
    return found


def check_poolable(results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to put runs on other tasks, data, models or metrics into one table, or seeds with other settings."""
    measured = [line for line in results if role_of(line) != "search"]
    if not measured:
        raise InputError("There are no results to compare: `results.jsonl` is empty.")
    joint = [line for line in measured if role_of(line) == "method"]
    _refuse(joint, "the tasks", lambda line: line["tasks"])
    _refuse(measured, "the data (`data_hash`)", lambda line: (line.get("provenance") or {}).get("data_hash"))
    _refuse(measured, "the model", lambda line: setting_of(line, "model_name_or_path"))
    _check_seeds(measured)
    tasks = {task for line in joint for task in line["tasks"]}
    alone = [line for line in measured if role_of(line) == "baseline" and tasks and not set(line["tasks"]) <= tasks]
    if alone:
        raise InputError(
            f"Runs cannot be pooled: `{alone[0]['run']}` is a baseline of task `{alone[0]['tasks'][0]}`, which "
            f"`{joint[0]['run']}` does not have ({', '.join(joint[0]['tasks'])})."
        )
    for task in dict.fromkeys(task for line in measured for task in line["tasks"]):
        named = [line for line in measured if task in (line.get("main_metric") or {})]
        _refuse(named, f"the main metric of `{task}`", lambda line, task=task: line["main_metric"][task])


def _check_seeds(lines: Sequence[Mapping[str, Any]]) -> None:
    """Refuse seeds of one method with other learning rates or steps; each method may have its own."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for line in lines:
        tasks = line["tasks"] if role_of(line) == "baseline" else []
        groups.setdefault((method_of(line), *tasks), []).append(line)
    for (method, *tasks), of in groups.items():
        name = f"`{method}`" + "".join(f" on `{task}`" for task in tasks)
        _refuse(of, f"the learning rate of {name}", lambda line: setting_of(line, "learning_rate"))
        for read in (asked_steps, _fixed_steps):
            _refuse(of, f"the steps of {name}", read)


def setting_of(line: Mapping[str, Any], key: str) -> Any:
    """Read a setting of a run."""
    config = line.get("config") or {}
    return config[key] if config.get(key) is not None else line.get(key)


def asked_steps(line: Mapping[str, Any]) -> int | str | None:
    """Return how many steps, or epochs, a run was configured for."""
    steps, epochs = setting_of(line, "max_steps"), setting_of(line, "num_train_epochs")
    if steps is not None and steps > 0:
        return int(steps)
    return None if epochs is None else f"{epochs:g} epochs"


def _fixed_steps(line: Mapping[str, Any]) -> Any:
    """Read a number of steps: asked for, or taken where the line does not say what was asked for."""
    asked = asked_steps(line)
    return line.get("steps") if asked is None else asked if isinstance(asked, int) else None


def _refuse(lines: Sequence[Mapping[str, Any]], what: str, read: Any) -> None:
    """Refuse lines that disagree; None says nothing."""
    known = [(line, read(line)) for line in lines if read(line) is not None]
    for line, value in known:
        if value != known[0][1]:
            raise InputError(
                f"Runs cannot be pooled: they disagree on {what}: `{known[0][0]['run']}` has {_short(known[0][1])}, "
                f"`{line['run']}` has {_short(value)}."
            )


def _short(value: object) -> str:
    """Write tasks as a list and a hash as its beginning."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:16] if re.fullmatch("[0-9a-f]{32,}", text) else text


def main_metrics(line: Mapping[str, Any]) -> dict[str, str]:
    """Return the metric by which each task of a run is judged."""
    given = line.get("main_metric") or {}
    found = {}
    for task in line["tasks"]:
        exact = f"eval_{task}_exact_match" in line["metrics"]
        found[task] = str(given.get(task) or ("exact_match" if exact else "loss"))
    return found
