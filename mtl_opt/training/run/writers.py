"""The logs of a run, written by one process while it goes on."""

import math
from pathlib import Path

from mtl_opt.monitor import ConflictLog, EventWindow, StepEvent, TensorBoardWriter, TrainerLog, diagnose
from mtl_opt.monitor.conflict_line import all_cosines, diagnosis_scalars
from mtl_opt.monitor.loss_plot import plot_losses
from mtl_opt.results import CONFLICT_JSONL, TRAINER_LOG_JSONL
from mtl_opt.training.config.yaml_file import dump_yaml
from mtl_opt.training.run.state import Run


class Writers:
    """Write `trainer_log.jsonl`, `conflict.jsonl`, and both to TensorBoard.

    Args:
        run: The run, at its first step or at the step of its checkpoint.
    """

    def __init__(self, run: Run) -> None:
        output = Path(run.output.output_dir)
        resumed = run.step or None
        purge = None if resumed is None else run.step + 1
        self.run = run
        self.window = EventWindow(run.prepared.tasks)
        self.board = TensorBoardWriter(output / "runs", run.prepared.tasks, purge_step=purge)
        self.log = TrainerLog(output / TRAINER_LOG_JSONL, run.total_steps, resume_step=resumed)
        self.conflict = ConflictLog(output / CONFLICT_JSONL, resume_step=resumed)
        if resumed is None:
            self.board.write_text("config", dump_yaml(run.settings))
        # TensorBoard shows ten images of a tag, and drawing one costs more than all scalars together.
        lines = math.ceil(run.total_steps / run.output.logging_steps)
        self.steps_per_image = math.ceil(lines / 10) * run.output.logging_steps

    def step(self, event: StepEvent) -> None:
        """Record a step; every `logging_steps` write the mean over them."""
        self.window.add(event)
        last = event.step == self.run.total_steps
        if event.step % self.run.output.logging_steps == 0 or last:
            self._line(event.step, draw=last or event.step % self.steps_per_image == 0)

    def stop(self) -> None:
        """Write what a line is still due for, where the run ends before its last step."""
        if self.window.events:
            self._line(self.run.step, draw=True)

    def _line(self, step: int, draw: bool) -> None:
        """Write the mean over the steps since the last line."""
        tasks, line, values = self.window.tasks, diagnose(self.window.events, self.window.tasks), None
        if line is not None:
            values = all_cosines(self.window.events)
            self.conflict.write(line)
        scalars, cosines = self.window.read_and_clear()
        notes = self.window.take_notes()
        self.board.write(step, scalars, cosines if draw and len(tasks) > 1 else None)
        self.board.write_notes(step, notes)
        if line is not None and values is not None:
            self.board.write_diagnosis(line, values, draw)
            scalars |= diagnosis_scalars(line, tasks)
        rows = {f"rows_{task}": number for task, number in self.run.loader.drawn().items()}
        self.log.write(step, epoch_of(self.run), {**scalars, **rows}, notes)

    def evaluation(self, metrics: dict[str, float]) -> None:
        """Write an evaluation."""
        self.board.write_evaluation(self.run.step, metrics)
        self.log.write_evaluation(self.run.step, metrics)

    def close(self) -> None:
        """Flush and close."""
        self.board.close()


class NoWriters:
    """The writers of the other processes, which write nothing."""

    def step(self, event: StepEvent) -> None:
        """Write nothing."""

    def evaluation(self, metrics: dict[str, float]) -> None:
        """Write nothing."""

    def stop(self) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Close nothing."""


def draw_losses(run: Run) -> None:
    """Draw the loss curves if `plot_loss` asks for them."""
    if run.output.plot_loss:
        plot_losses(Path(run.output.output_dir) / TRAINER_LOG_JSONL, run.prepared.tasks)


def epoch_of(run: Run) -> float:
    """Compute the epochs so far: rows drawn over rows there are, streams left out."""
    sizes = {task: size or 0 for task, size in run.prepared.sizes.items()}
    drawn = run.loader.epochs()
    total = sum(sizes.values())
    return sum(drawn[task] * size for task, size in sizes.items()) / total if total else 0.0
