"""Keys of a configuration → what makes one evaluation better than another, and when to stop for want of better ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.evaluation import METRICS
from mtl_opt.training.config.keys import OutputKeys
from mtl_opt.training.config.task_metrics import main_metric, metric_names, worth
from mtl_opt.training.setup.data import Prepared

OVER_TASKS = ("mean", "worst", "loss")
"""Values of `metric_for_best_model` that look at all tasks."""


@dataclass(frozen=True)
class Selection:
    """How evaluations are judged.

    Attributes:
        name: `mean`, `worst`, `loss`, or the key of one metric of one task, as evaluations have it.
        main: The main metric of every task with held-out rows, auxiliary tasks included.
        judged: The tasks that count in `mean`, `worst` and `loss`.
        higher: Whether higher is better.
        patience: Evaluations in a row without improvement after which the run stops; None: never.
        threshold: What an evaluation must gain over the best one to count as an improvement.
        keeps_best: Whether the result of the run is its best evaluation.
    """

    name: str
    main: dict[str, str]
    judged: tuple[str, ...]
    higher: bool
    patience: int | None = None
    threshold: float = 0.0
    keeps_best: bool = False

    def value(self, metrics: Mapping[str, float]) -> float | None:
        """Compute what an evaluation is judged by; None where it is not there or not finite."""
        if self.name not in OVER_TASKS:
            return _finite(metrics.get(self.name))
        of = {task: "loss" if self.name == "loss" else self.main[task] for task in self.judged}
        found = [_finite(metrics.get(f"eval_{task}_{metric}")) for task, metric in of.items()]
        values = [value for value in found if value is not None]
        if not values or len(values) < len(found):
            return None
        if self.name == "loss":
            return fmean(values)
        worths = [worth(metric, value) for metric, value in zip(of.values(), values, strict=True)]
        return min(worths) if self.name == "worst" else fmean(worths)

    def better(self, value: float, than: float, by: float = 0.0) -> bool:
        """Return whether a value is better than another by more than `by`."""
        return (value - than if self.higher else than - value) > by


def selection_of(keys: OutputKeys, prepared: Prepared) -> Selection | None:
    """Read how evaluations are judged; None for data without held-out rows, where nothing can be."""
    settings = prepared.settings
    main = {task: main_metric(settings[task]) for task in prepared.tasks if prepared.eval_rows[task]}
    asked = keys.load_best_model_at_end or keys.early_stopping_patience is not None
    if not main:
        if asked:
            key = "load_best_model_at_end" if keys.load_best_model_at_end else "early_stopping_patience"
            raise InputError(f"`{key}` looks at held-out rows, and no task has any (`val_size`, `eval_file`).")
        return None
    judged = tuple(task for task in main if settings[task].role == "main") or tuple(main)
    name, higher = _metric(keys.metric_for_best_model, main, prepared)
    if keys.greater_is_better not in {None, higher}:
        raise InputError(
            f"`greater_is_better: {str(keys.greater_is_better).lower()}` contradicts `metric_for_best_model: "
            f"{keys.metric_for_best_model}`, of which {'higher' if higher else 'lower'} is better; leave it out."
        )
    return Selection(
        name, main, judged, higher, keys.early_stopping_patience, keys.early_stopping_threshold,
        keys.load_best_model_at_end,
    )  # fmt: skip


def _metric(name: str, main: Mapping[str, str], prepared: Prepared) -> tuple[str, bool]:
    """Resolve `metric_for_best_model` into a name of `Selection` and its direction."""
    if name in OVER_TASKS or name == "eval_loss":  # as Hugging Face's logs have it
        return name.removeprefix("eval_"), name not in {"loss", "eval_loss"}
    keys = {}
    for task in main:
        for metric in _measured(prepared.settings[task]):
            keys[f"{task}/{metric}"] = keys[f"eval_{task}_{metric}"] = (f"eval_{task}_{metric}", metric)
    if name not in keys:
        allowed = [*OVER_TASKS, *(key for key in keys if not key.startswith("eval_"))]
        raise UnknownNameError("value of `metric_for_best_model`:", name, allowed)
    key, metric = keys[name]
    return key, METRICS[metric].higher_is_better


def _measured(settings: Any) -> Sequence[str]:
    """List the metrics that an evaluation has of a task."""
    return tuple(dict.fromkeys(("loss", *(name.partition("=")[0] for name in metric_names(settings)))))


def _finite(value: float | None) -> float | None:
    """Return a value that is there and finite."""
    return value if value is not None and math.isfinite(value) else None
