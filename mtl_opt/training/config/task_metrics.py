"""By what a task is measured: the metrics its user names, else loss and exact match."""

from collections.abc import Sequence

from mtl_opt.data import Row, TaskSettings
from mtl_opt.evaluation import METRICS, check_metrics, split_name

DEFAULT = ("exact_match",)
"""What answers are measured by where a task names no metrics; the loss is measured of every task."""

WHOLE_LABELS = ("exact_match", "accuracy", "f1_macro", "f1_binary", "matthews")
"""Metrics for which an answer longer than every reference is wrong however it goes on."""


def metric_names(settings: TaskSettings) -> tuple[str, ...]:
    """List the metrics of a task, the main one first."""
    return settings.metrics or DEFAULT


def main_metric(settings: TaskSettings) -> str:
    """Name the metric by which a task is judged: the first of its `metrics`."""
    return split_name(metric_names(settings)[0])[0]


def directions_of(settings: Sequence[TaskSettings]) -> dict[str, bool]:
    """Say of every metric whether higher is better."""
    names = dict.fromkeys(split_name(name)[0] for one in settings for name in metric_names(one))
    return {name: METRICS[name].higher_is_better for name in (*names, "loss")}


def needs_answers(settings: TaskSettings) -> bool:
    """Tell whether answers must be generated to measure a task."""
    return any(METRICS[split_name(name)[0]].needs != "loss" for name in metric_names(settings))


def may_stop_early(settings: TaskSettings) -> bool:
    """Tell whether answers need not be generated further than the longest reference."""
    names = [split_name(name)[0] for name in metric_names(settings)]
    return all(name in WHOLE_LABELS or METRICS[name].needs == "loss" for name in names)


def check_measuring(task: str, settings: TaskSettings, rows: Sequence[Row]) -> None:
    """Refuse metrics that do not exist or do not fit the held-out rows, before time is spent on training."""
    if settings.metrics:
        check_metrics(settings.metrics, [row.output for row in rows], f"`metrics` of task `{task}`")
