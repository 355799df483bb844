"""Learning curves: per method, task and quantity the mean over seeds and its range, thinned to what a page can show."""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from mtl_opt.results import TRAINER_LOG_JSONL, parse_json_line

STEP = re.compile(rb'^\s*\{"current_steps": (\d+)')
TRAINING = {"loss": "loss_{}", "grad_norm": "grad_norm_{}", "weight": "weight_{}", "pull": "pull_{}"}
"""Quantities of the training lines: name on the page, key of the log."""

Rows = dict[int, dict[str, Any]]
"""Lines of a log by step."""


def round_number(value: Any, digits: int = 4) -> float | None:
    """Round a number for the page; None where it is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """Pick evenly spaced items of a sequence, the first and the last among them.

    Examples:
        >>> evenly(range(10), 4)
        [0, 3, 6, 9]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def metric_keys(tasks: Sequence[str], keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Split keys such as `eval_qa_loss` into task and metric."""
    found = {}
    for key in keys:
        owners = [task for task in tasks if key.startswith(f"eval_{task}_")]
        if owners:
            task = max(owners, key=len)
            found[key] = (task, key.removeprefix(f"eval_{task}_"))
    return found


def read_log(paths: Sequence[Path], most: int) -> list[tuple[Rows, Rows]]:
    """Read the logs of the runs of one method, only the lines that are shown."""
    texts = [path.read_bytes().splitlines() if path.exists() else [] for path in paths]
    sorted_out: list[tuple[dict[int, bytes], dict[int, bytes]]] = []
    for lines in texts:
        training, evaluation = dict[int, bytes](), dict[int, bytes]()
        for text in lines:
            match = STEP.match(text)
            if match:
                (evaluation if b'"eval_' in text else training)[int(match[1])] = text
        sorted_out.append((training, evaluation))
    keep = [set(evenly(sorted({step for pair in sorted_out for step in pair[kind]}), most)) for kind in (0, 1)]
    return [(parsed(pair[0], keep[0]), parsed(pair[1], keep[1])) for pair in sorted_out]


def parsed(texts: Mapping[int, bytes], keep: set[int]) -> Rows:
    """Parse the lines that are wanted."""
    rows = {step: parse_json_line(text) for step, text in texts.items() if step in keep}
    return {step: row for step, row in rows.items() if row is not None}


def band(runs: Sequence[Mapping[int, Any]]) -> dict[str, list[Any]] | None:
    """Average a quantity over runs, step by step."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for step, value in run.items():
            if round_number(value) is not None:
                values.setdefault(step, []).append(float(value))
    if not values:
        return None
    steps = sorted(values)
    curve: dict[str, list[Any]] = {"x": steps, "mean": [round_number(fmean(values[step])) for step in steps]}
    if any(len(values[step]) > 1 for step in steps):
        curve["low"] = [round_number(min(values[step])) for step in steps]
        curve["high"] = [round_number(max(values[step])) for step in steps]
    return curve


def method_curves(logs: Sequence[tuple[Rows, Rows]], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Build all curves of one method."""
    curves: dict[str, dict[str, Any]] = {}
    for quantity, key in TRAINING.items():
        for task in tasks:
            name = key.format(task)
            curve = band([{step: row.get(name) for step, row in training.items()} for training, _ in logs])
            if curve is not None:
                curves.setdefault(quantity, {})[task] = curve
    keys = dict.fromkeys(key for _, evaluation in logs for row in evaluation.values() for key in row)
    for key, (task, metric) in metric_keys(tasks, keys).items():
        curve = band([{step: row.get(key) for step, row in evaluation.items()} for _, evaluation in logs])
        if curve is not None:
            curves.setdefault(f"eval_{metric}", {})[task] = curve
    return curves


def all_curves(groups: Mapping[str, Sequence[Path]], tasks: Sequence[str], budget: int = 60_000) -> dict[str, Any]:
    """Build the curves of every method."""
    most = max(12, min(120, budget // max(1, 4 * len(groups) * len(tasks))))
    return {
        method: method_curves(read_log([folder / TRAINER_LOG_JSONL for folder in folders], most), tasks)
        for method, folders in groups.items()
    }
