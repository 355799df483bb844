"""The conflict of the tasks between two log lines as one object of plain values: a line of `conflict.jsonl`."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_opt.linalg import cosines
from mtl_opt.monitor.events import StepEvent
from mtl_opt.monitor.gramian_measures import (
    condition_number,
    conflict_rates,
    cosines_of,
    curvature_bound,
    magnitude_similarity,
    update_shares,
)
from mtl_opt.monitor.json_lines import drop_lines_after
from mtl_opt.monitor.log_numbers import distinct
from mtl_opt.monitor.noise_correction import CorrectedCosines, correct_noise
from mtl_opt.monitor.other_updates import angles, angles_to_vector, fitted_weights, predicted_changes
from mtl_opt.results import json_line

DIGITS = 5
"""Significant digits of what is averaged, estimated or predicted."""

ALL_DIGITS = 9
"""Significant digits that distinguish any two float32 weights."""

Line = dict[str, Any]
"""Plain values, ready for JSON; None where a number is undefined."""


def diagnose(events: Sequence[StepEvent], tasks: Sequence[str]) -> Line | None:
    """Describe the steps since the last log line.

    Args:
        events: Their events, the oldest first.
        tasks: Names of the tasks, in the order of the events' tensors.

    Returns:
        None where no step was taken. Otherwise, over all steps: `cosines`, `magnitude_similarity`, `conflict_rate` and
        `shares` (of the update) as means over the steps in which they are defined, `curvature_bound` and
        `condition_number` (of the Jacobian) as medians, since they are ratios without an upper end. Of the last step:
        `corrected` (over its window), `layers` (cosines layer by layer) and `shadows`.
    """
    taken = [event for event in events if not event.skipped]
    if not taken:
        return None
    gramians = torch.stack([event.gramian for event in taken])
    last = taken[-1]
    window = last.window
    found = None if window is None else correct_noise(window.blocks, window.power, window.steps)
    return {
        "step": last.step,
        "tasks": list(tasks),
        "cosines": plain_numbers(cosines_of(gramians).nanmean(0)),
        "magnitude_similarity": plain_numbers(magnitude_similarity(gramians).nanmean(0)),
        "curvature_bound": plain_numbers(curvature_bound(gramians).nanmedian(0).values),
        "condition_number": plain_numbers(condition_number(gramians).nanmedian()),
        "conflict_rate": plain_numbers(conflict_rates(gramians).nanmean()),
        "shares": plain_numbers(_shares(taken)),
        "corrected": None if found is None else corrected_line(found),
        "layers": None if last.layer_gramians is None else layer_lines(last.layer_gramians),
        "shadows": None if last.shadows is None else shadow_lines(last),
    }


def corrected_line(found: CorrectedCosines) -> Line:
    """Write an estimate as plain values."""
    return {
        "cosines": plain_numbers(found.cosines),
        "low": plain_numbers(found.low),
        "high": plain_numbers(found.high),
        "verdict": found.verdict,
        "signal_to_noise": plain_numbers(found.signal_to_noise),
        "steps": found.steps,
    }


def layer_lines(gramians: Mapping[str, Tensor]) -> dict[str, Any]:  # {layer: [tasks, tasks]}
    """Write the cosines of every layer as plain values."""
    return dict(zip(gramians, plain_numbers(cosines_of(torch.stack(list(gramians.values())))), strict=True))


def shadow_lines(event: StepEvent) -> dict[str, Any]:
    """Compare the update that was taken with what other combiners would have done."""
    readings = event.shadows or {}
    nothing = torch.full_like(event.losses, torch.nan, dtype=torch.float64)
    known = [nothing if one.weights is None else one.weights.double() for one in readings.values()]
    weights = torch.stack(known or [nothing])
    turned = _angles(event, weights)
    changes = predicted_changes(event.gramian, weights, event.learning_rate, event.max_grad_norm)
    changes = torch.where(event.counts > 0, changes, torch.nan)
    numbers = plain_numbers(weights, ALL_DIGITS), plain_numbers(turned), plain_numbers(changes)
    rows = zip(readings.items(), *numbers, strict=False)
    return {
        name: {
            "weights": None if reading.weights is None else own,
            "angle": angle,
            "change": None if reading.weights is None else change,
            "on_this_trajectory": reading.on_this_trajectory,
            "note": reading.note,
        }
        for (name, reading), own, angle, change in rows
    }


def _angles(event: StepEvent, weights: Tensor) -> Tensor:  # [methods, tasks] -> [methods]
    """Measure the angles to the update, with or without weights of its own."""
    if event.weights is not None:
        return angles(event.gramian, weights, event.weights)
    if event.products is not None:
        return angles_to_vector(event.gramian, weights, event.products, event.update_norm)
    return torch.full((len(weights),), torch.nan)


def _shares(events: Sequence[StepEvent]) -> Tensor:  # [tasks]
    """Average each task's share of the update over the steps in which it is known."""
    found = [_share(event) for event in events]
    return torch.stack(found).nanmean(0)


def _share(event: StepEvent) -> Tensor:  # [tasks]
    """Compute each task's share of one update; without weights, of the part of it that the rows span."""
    if event.weights is not None:
        return update_shares(event.gramian, event.weights)
    if event.products is None or event.update_norm <= 0:
        return torch.full_like(event.losses, torch.nan, dtype=torch.float64)
    return fitted_weights(event.gramian, event.products) * event.products.double() / event.update_norm**2


def plain_numbers(values: Tensor, digits: int = DIGITS) -> Any:  # values [...]
    """Convert a tensor to plain numbers, rounded to some significant digits."""

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(entry) for entry in value]
        return float(f"{value:.{digits}g}") if isfinite(value) else None

    return convert(values.tolist())


def diagnosis_scalars(line: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, float]:
    """Read the flat numbers off a diagnosis, for the log and for TensorBoard.

    Args:
        line: What `diagnose` gave.
        tasks: Names of the tasks as they stand in keys.

    Returns:
        `condition_number`, `share_{task}` of the update, and over the window `snr_{task}` (signal-to-noise) and
        `corrected_cos_{a}_{b}`; what is undefined is left out.
    """
    found = {"condition_number": line["condition_number"]}
    found |= {f"share_{task}": share for task, share in zip(tasks, line["shares"], strict=True)}
    if line["corrected"] is not None:
        ratios = line["corrected"]["signal_to_noise"]
        found |= {f"snr_{task}": ratio for task, ratio in zip(tasks, ratios, strict=True)}
        matrix = line["corrected"]["cosines"]
        keys = distinct(f"corrected_cos_{a}_{b}" for a, b in combinations(tasks, 2))
        pairs = combinations(range(len(tasks)), 2)
        found |= {key: matrix[i][j] for key, (i, j) in zip(keys, pairs, strict=True)}
    return {key: value for key, value in found.items() if value is not None}


def all_cosines(events: Sequence[StepEvent]) -> Tensor:  # [steps * pairs]
    """Collect the cosines of every pair in every step, for a histogram."""
    taken = [cosines(event.gramian) for event in events if not event.skipped]
    if not taken:
        return torch.empty(0)
    matrix = torch.stack(taken)
    rows, columns = torch.triu_indices(matrix.shape[-1], matrix.shape[-1], offset=1)
    values = matrix[:, rows, columns].flatten()
    return values[values.isfinite()]


class ConflictLog:
    """Append to `conflict.jsonl`; every line is on disk when the call returns.

    Args:
        path: The file; a fresh run replaces an old one.
        resume_step: Step the run continues after; lines of later steps are dropped. None for a fresh run.
    """

    def __init__(self, path: str | Path, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step is None or not self.path.exists():
            self.path.write_bytes(b"")
        else:
            drop_lines_after(self.path, resume_step, key="step")

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            line: What `diagnose` gave.
        """
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json_line(line))
