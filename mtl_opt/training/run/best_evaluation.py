"""The best evaluation so far, of the run and of every task, and the weights that belong to it."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from mtl_opt.errors import InputError
from mtl_opt.evaluation import METRICS
from mtl_opt.models.sharing.files.sharing_files import sharing_state
from mtl_opt.training.setup.selection import Selection

logger = logging.getLogger(__name__)


@dataclass
class Record:
    """The best value of one metric.

    Attributes:
        metric: Its name.
        step: Step of the evaluation that gave it; of equal ones the first.
        value: The value.
    """

    metric: str
    step: int
    value: float


@dataclass
class BestEvaluation:
    """What the evaluations of a run have brought, part of every checkpoint.

    Attributes:
        run: The best by `metric_for_best_model`; None before the first evaluation after a step.
        tasks: The best of every task by its own main metric.
        waiting: Evaluations in a row without improvement.
        seen: Step of the newest evaluation.
    """

    run: Record | None = None
    tasks: dict[str, Record] = field(default_factory=dict)
    waiting: int = 0
    seen: int = 0

    def add(self, how: Selection, metrics: Mapping[str, float], step: int) -> bool:
        """Take in an evaluation; return whether it is the best so far."""
        if step == self.seen:  # the run goes on from the checkpoint of this very evaluation
            return False
        self.seen = step
        for task, metric in how.main.items():
            value, known = metrics.get(f"eval_{task}_{metric}"), self.tasks.get(task)
            if value is not None and (known is None or _better(metric, value, known.value)):
                self.tasks[task] = Record(metric, step, value)
        value = how.value(metrics)
        known = self.run
        enough = value is not None and (known is None or how.better(value, known.value, how.threshold))
        self.waiting = 0 if enough else self.waiting + 1
        if value is None or (known is not None and not how.better(value, known.value)):
            return False
        self.run = Record(how.name, step, value)
        return True

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BestEvaluation":
        """Build from plain values."""
        run = values["run"]
        tasks = {task: Record(**one) for task, one in values["tasks"].items()}
        return cls(None if run is None else Record(**run), tasks, values["waiting"], values["seen"])

    def results(self) -> dict[str, Any] | None:
        """Describe the best evaluations as `all_results.json` has them."""
        if self.run is None:
            return None
        return {**asdict(self.run), "tasks": {task: asdict(one) for task, one in self.tasks.items()}}


def _better(metric: str, value: float, than: float) -> bool:
    """Return whether a value of a metric is better than another; NaN never is."""
    return value > than if METRICS[metric].higher_is_better else value < than


def bring_best(found: Path, output: Path, name: str) -> None:
    """Copy the best checkpoint of a run that goes on in another folder; refuse where it is gone."""
    if (output / name).is_dir():
        return
    source = found.parent / name
    if not source.is_dir():
        raise InputError(
            f"`resume_from_checkpoint`: `{found}` needs `{source}` beside it, the best so far "
            "(`load_best_model_at_end`), and it is gone."
        )
    partial = output / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.rename(output / name)


@torch.no_grad()
def take_weights(model: nn.Module, other: nn.Module) -> None:
    """Copy what is trained from a model built alike, spread over the processes where the own one is."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # an evaluation leaves the outermost parameters gathered, apart from what is kept
    own, source = sharing_state(model), sharing_state(other)
    for name, value in own.items():
        new = source[name].to(value.device)
        value.copy_(distribute_tensor(new, value.device_mesh, value.placements) if isinstance(value, DTensor) else new)
