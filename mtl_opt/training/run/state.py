"""The state of a run between two steps: saved to and restored from a checkpoint."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mtl_opt.batch import TaskBatch
from mtl_opt.training.config.keys import ModelKeys, OutputKeys
from mtl_opt.training.run.best_evaluation import BestEvaluation
from mtl_opt.training.run.measurement import Measured
from mtl_opt.training.run.step import Parts
from mtl_opt.training.setup.data import Prepared
from mtl_opt.training.setup.loader import BatchLoader
from mtl_opt.training.setup.model_settings import EvaluationSettings
from mtl_opt.training.setup.selection import Selection


@dataclass
class Totals:
    """Hold the sums of a whole run, across resumes.

    Attributes:
        conflicts: Sum of the conflict rates of all steps with at least one pair of tasks.
        measured: Number of these steps.
        loss: Sum of the mean task loss of every step.
        seconds: Time spent in steps.
        skipped: Steps in which float16 overflowed.
        evaluating: Time spent in evaluation.
        pull: Sum of the row scales of each task; empty before the first step. `[tasks]`
    """

    conflicts: float = 0.0
    measured: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    skipped: int = 0
    evaluating: float = 0.0
    pull: list[float] = field(default_factory=list)


@dataclass
class Run:
    """The state of a run between two steps.

    Attributes:
        settings: The whole configuration as plain values: written into the folder, and compared on a resume.
        output: What is written, where and when.
        base: The model that is trained, as its files describe it.
        evaluation: How the model is measured.
        observe_every: Steps between two observations of held-out losses.
        prepared: The data.
        parts: The objects that a step acts on.
        loader: Makes the batches of the next step.
        device: Where the model is.
        total_steps: Optimizer steps of the whole run.
        rebuild: Builds the model of a checkpoint once more, on the CPU.
        selection: How evaluations are judged; None where no task has held-out rows.
        step: Optimizer steps taken.
        totals: Counts over the run.
        before: Evaluation of the untrained model.
        best: The best evaluations so far.
        row_losses: Loss of every training row before training, by task; None where rows are not sorted by it.
        measured: The newest evaluation of this process, and its step.
        begin: When this process started it, by `time.perf_counter`.
        known_seconds: Seconds in steps and evaluation before the resume.
    """

    settings: dict[str, Any]
    output: OutputKeys
    base: ModelKeys
    evaluation: EvaluationSettings
    observe_every: int
    prepared: Prepared
    parts: Parts
    loader: BatchLoader
    device: torch.device
    total_steps: int
    rebuild: Callable[[Path], Any]
    selection: Selection | None = None
    step: int = 0
    totals: Totals = field(default_factory=Totals)
    before: dict[str, float] = field(default_factory=dict)
    best: BestEvaluation = field(default_factory=BestEvaluation)
    row_losses: dict[str, torch.Tensor] | None = None
    measured: tuple[int, Measured] | None = None
    begin: float = field(default_factory=time.perf_counter)
    known_seconds: float = 0.0

    def is_over(self) -> bool:
        """Return whether all steps are taken, or evaluations have brought no improvement for too long."""
        return self.step >= self.total_steps or self.stops_early()

    def stops_early(self) -> bool:
        """Return whether as many evaluations in a row as `early_stopping_patience` allows brought no improvement."""
        patience = None if self.selection is None else self.selection.patience
        return patience is not None and self.best.waiting >= patience

    def overhead(self) -> float:
        """Compute the seconds that this process has spent outside of steps and evaluation."""
        busy = self.totals.seconds + self.totals.evaluating - self.known_seconds
        return max(0.0, time.perf_counter() - self.begin - busy)

    def next_batches(self) -> list[TaskBatch]:
        """Draw the micro-batches of the next step."""
        return [batch.to(self.device) for batch in self.loader.next()]
