"""The metrics of a task: those its user names, else loss and exact match."""

from collections.abc import Sequence
from math import exp

from mtl_opt.data import Row, TaskSettings
from mtl_opt.evaluation import METRICS, check_metrics, split_name

DEFAULT = ("exact_match",)
"""Metrics of tasks that name none; the loss is always measured."""

WHOLE_LABELS = ("exact_match", "accuracy", "f1_macro", "f1_binary", "matthews")
"""Metrics for which an answer longer than every reference is wrong however it goes on."""

LOWER = {"loss": lambda value: exp(-value), "perplexity": lambda value: 1 / value, "mse": lambda value: 1 / (1 + value)}
"""Metrics of which lower is better, mapped to (0, 1] where higher is: for the first two the mean probability of a
token."""


def worth(metric: str, value: float) -> float:
    """Map a value of a metric such that higher is better, so that metrics can be averaged."""
    return LOWER[metric](value) if metric in LOWER else value


def metric_names(settings: TaskSettings) -> tuple[str, ...]:
    """List the metrics of a task, the main one first."""
    return settings.metrics or DEFAULT


def main_metric(settings: TaskSettings) -> str:
    """Return the metric a task is judged by: the first of its `metrics`."""
    return split_name(metric_names(settings)[0])[0]


def directions_of(settings: Sequence[TaskSettings]) -> dict[str, bool]:
    """Map every metric in use to whether higher is better."""
    names = dict.fromkeys(split_name(name)[0] for one in settings for name in metric_names(one))
    return {name: METRICS[name].higher_is_better for name in (*names, "loss")}


def needs_answers(settings: TaskSettings) -> bool:
    """Return whether measuring a task takes generated answers."""
    return any(METRICS[split_name(name)[0]].needs != "loss" for name in metric_names(settings))


def may_stop_early(settings: TaskSettings) -> bool:
    """Return whether answers need not be longer than the longest reference."""
    names = [split_name(name)[0] for name in metric_names(settings)]
    return all(name in WHOLE_LABELS or METRICS[name].needs == "loss" for name in names)


def check_measuring(task: str, settings: TaskSettings, rows: Sequence[Row]) -> None:
    """Refuse unknown or unfitting metrics before time is spent on training."""
    if settings.metrics:
        check_metrics(settings.metrics, [row.output for row in rows], f"`metrics` of task `{task}`")
